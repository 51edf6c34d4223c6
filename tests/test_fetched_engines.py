"""Every engine from the Hub on weights that came through the Hub's protocol."""

from __future__ import annotations

from pathlib import Path

from hub_server import Repository, serve
from test_weights import run_code
from tiny_models import write_all

from portraitgen import weights
from portraitgen.weights_table import ENGINE_WEIGHTS

EDIT_ALL = """
import dataclasses, sys, torch
sys.path.insert(0, "tests")
from pathlib import Path
from portraitgen import weights
from portraitgen.body import LABELS
from portraitgen.editors import EditBatch
from portraitgen.editors.fashn import FashnTryOn
from portraitgen.editors.flux import FluxKlein
from portraitgen.editors.gatys import Gatys
from portraitgen.editors.ic_light import IcLight
from portraitgen.editors.latent_diffusion import InstructPix2Pix
from tiny_models import TINY

for name in NAMES:
    assert weights.path(name) is None
    weights.fetch(name)
source = torch.rand(1, 3, 64, 64)
person = torch.zeros(1, 1, 64, 64)
person[..., 16:, 16:48] = 1
torso = person.long() * (LABELS.index("torso") + 1) - 1
batch = dataclasses.replace(
    EditBatch.of_background(source), alpha=person, regions={"clothes": person}, parts=torso, rest=torch.zeros(1, 3, 64, 64)
)
for editor in (
    InstructPix2Pix("red hair", "cpu", size=64, steps=2),
    FluxKlein("red hair", "cpu", size=64, steps=2),
    IcLight("from the left", None, "cpu", size=64, steps=2),
    Gatys(Path("examples/styles/starry_night.jpg"), False, "cpu", steps=2),
    FashnTryOn(Path("examples/garments/striped_jumper.png"), "cpu", steps=2, size=TINY),
):
    change = ((editor.edit(batch) - source).abs() * person).sum() / person.sum()
    print(editor.name, "changes the person" if change > 0.01 else float(change))
"""


def test_real_models_arrive_whole_and_edit(tmp_path: Path) -> None:
    """Tiny models of the real classes, through the Hub's protocol into every engine."""
    there = tmp_path / "there"
    write_all(there)
    names = sorted({name for needed in ENGINE_WEIGHTS.values() for name in needed})
    repositories = {}
    for name in names:
        entry, folder = weights.find(name), there / name
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        repositories[entry.repo] = Repository(entry.revision, files)
    with serve(repositories) as hub:
        done = run_code(hub, tmp_path / "here", EDIT_ALL.replace("NAMES", repr(names)))
    engines = ("InstructPix2Pix", "FLUX.2 klein", "IC-Light", "Gatys (VGG19)", "FASHN VTON 1.5")
    assert done.stdout.splitlines() == [f"{engine} changes the person" for engine in engines], done.stderr
