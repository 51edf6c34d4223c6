"""The words of the built-in editor: regions, colours, materials, looks, painting styles, light and characters.

Each table maps a name to its everyday phrases, "|" between them. Phrases are compared without spaces and hyphens, so "pop art",
"pop-art" and "popart" are one entry. ``vocabulary()`` is the index over all tables.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from .limits import IMPOSSIBLE, words

FACE = ("skin", "lips", "eyes", "brows", "teeth", "mouth")
PERSON = ("skin", "hair", "lips", "eyes", "brows", "teeth", "mouth", "clothes")
EVERYTHING = ("background", *PERSON)

REGION_WORDS: Mapping[str, str] = {
    "hair": "hair|hairs|hairstyle|haircut|locks|braids|ponytail|bangs|fringe|curls|wig",
    "skin": "skin|complexion|neck|hand|hands|arm|arms|cheek|cheeks|forehead|chin|ears|ear|skin tone",
    "face": "face|faces|facial features|features",
    "head": "head",
    "lips": "lip|lips|mouth|lipstick|lip colour|lip gloss",
    "eyes": "eye|eyes|iris|irises|eye colour|pupils|pupil|gaze",
    "brows": "brow|brows|eyebrow|eyebrows",
    "teeth": "teeth|tooth",
    "clothes": "clothes|clothing|cloth|dress|shirt|tshirt|t shirt|tee|blouse|jacket|coat|suit|sweater|jumper|"
    "pullover|hoodie|vest|"
    "outfit|garment|garments|uniform|top|costume|turtleneck|cardigan|gown|robe|scarf|collar|blazer|wearing|armour|"
    "armor",
    "background": "background|backdrop|backgrounds|wall|scenery|surroundings|behind her|behind him|behind them|"
    "behind me|back ground|room",
    "everything": "everything|all of it|whole image|whole picture|entire image|entire picture|whole frame|the image|"
    "the picture|picture|"
    "image|photo|video|clip|frame|scene|whole video|all|photograph|footage|whole thing",
    "person": "person|him|her|he|she|his|me|my|them|they|their|man|woman|guy|girl|boy|lady|gentleman|subject|"
    "portrait|whole person|"
    "body|whole body|myself|herself|himself|human|model|character|people|actor|actress|this person|dude|kid|child",
}
WEAK_REGIONS = frozenset({"everything", "person"})  # they give way to a named region of the same clause
REGION_SETS: Mapping[str, tuple[str, ...]] = {
    "face": FACE,
    "head": (*FACE, "hair"),
    "everything": EVERYTHING,
    "person": PERSON,
}

# Everyday colours that CSS lacks, or means otherwise.
EXTRA_COLOURS: Mapping[str, str] = {
    "burgundy": "#6d0f26", "wine": "#6b1a32", "scarlet": "#d4170f", "vermilion": "#e34234", "cherry": "#c4102f",
        "ruby": "#b80f3a",
    "cherry red": "#c4102f", "blood red": "#7e0a0a", "rust": "#a4461c", "rusty": "#a4461c", "brick": "#9c3f2c",
        "terracotta colour": "#c66a4a",
    "peach": "#ffb38a", "apricot": "#fbb47c", "tangerine": "#f58220", "amber": "#f0a01a", "mustard": "#d2a520",
        "honey": "#c98a2b",
    "lemon": "#f6e84a", "canary": "#ffe94a", "champagne": "#ecd9b0", "cream": "#fbf1d7", "ecru": "#cdb891",
        "sand": "#d6bd8d", "taupe": "#8b7d70",
    "caramel": "#a9682f", "chestnut": "#6b3520", "auburn": "#7a2f1c", "mahogany": "#5a1f16",
        "chocolate brown": "#4a2a1a", "chocolate": "#4a2a1a",
    "coffee": "#553826", "mocha": "#6d4c3a", "cinnamon": "#9a5326", "hazel": "#8e6b35", "emerald": "#12a068",
        "jade": "#35a27a", "mint": "#98e2bd",
    "sage": "#9caf88", "forest": "#1f5a2c", "moss": "#6b7a35", "pistachio": "#a9cf7a", "lime green": "#32cd32",
        "bottle green": "#0b4a36",
    "aqua blue": "#3cc8d8", "petrol": "#14566a", "cobalt": "#1f47b5", "sapphire": "#1444a8", "denim": "#3b5a84",
        "ultramarine": "#2a1fae",
    "electric blue": "#1a6dff", "baby blue": "#9fcdf2", "sky": "#7ec4ee", "ice blue": "#bfe3f2",
        "icy blue": "#bfe3f2", "midnight": "#14163f",
    "navy blue": "#0f1d52", "royal": "#2b4cd8", "lilac": "#c2a0dc", "mauve": "#b98ac0", "aubergine": "#4a1b46",
        "eggplant": "#4a1b46",
    "grape": "#6a2c91", "amethyst": "#9460cc", "rose": "#e5607f", "blush": "#eda6a8", "bubblegum": "#ff85c8",
        "bubblegum pink": "#ff85c8",
    "fuschia": "#ff00c8", "neon pink": "#ff2fa8", "neon green": "#39ff14", "neon yellow": "#e7ff1a",
        "neon orange": "#ff6a13",
    "neon blue": "#1f8bff", "neon purple": "#b026ff", "pastel pink": "#f9c6d3", "pastel blue": "#b9d7f3",
        "pastel green": "#bfe6c3",
    "pastel purple": "#d6c4ec", "pastel yellow": "#fbf1b3", "charcoal grey": "#3a3d42", "anthracite": "#33363b",
        "jet black": "#0a0a0c", "jet": "#0a0a0c",
    "raven": "#101014", "off white": "#f5f1e6", "snow white": "#fbfbff", "silver": "#b9bec6", "gold": "#d9a927",
        "golden": "#d9a927",
    "copper": "#b0572b", "bronze": "#93612b", "platinum": "#e4dfd2", "brown": "#6b4423", "green": "#1e9e3a",
        "purple": "#7a1fa2", "grey": "#8c8c90",
    "pink": "#f781b0", "orange": "#f57c14", "yellow": "#f7d917", "red": "#d3141c", "blue": "#1c4fe0",
        "turquoise blue": "#2fc4c9", "teal": "#0f8a8a",
    "white": "#f7f7f7", "black": "#111114", "navy": "#0f1d52", "ash": "#b2aca3", "khaki": "#a39b6b",
        "dark blue": "#16265c", "dark green": "#14422a",
    "dark red": "#7a1018", "olive": "#6d6d22", "beige": "#dbcdb0", "green screen": "#00b140", "chroma key": "#00b140",
        "blue screen": "#0047bb",
}  # fmt: skip
HAIR_COLOURS: Mapping[str, str] = {
    "blonde": "#d8b36a", "blond": "#d8b36a", "platinum blonde": "#eadfc4", "platinum blond": "#eadfc4",
        "golden blonde": "#dcae4e",
    "strawberry blonde": "#d58b56", "ash blonde": "#c3b18d", "dirty blonde": "#a98553", "ginger": "#c05a1e",
        "redhead": "#a63a18", "brunette": "#4b2e1e",
    "red haired": "#a63a18", "grey haired": "#9a9a9c", "white haired": "#ededea", "black haired": "#111114",
        "blue haired": "#1c4fe0",
    "pink haired": "#f781b0", "green haired": "#1e9e3a", "brown haired": "#4b2e1e", "salt and pepper": "#85858a",
}  # fmt: skip
SHADES: Mapping[str, str] = {
    "dark": "dark|deep|darker",
    "light": "light|lighter|soft",
    "pale": "pale|paler|pastel|washed out|faint",
    "bright": "bright|brighter|vivid|vibrant|intense|neon|fluorescent|electric|hot|shiny|glowing|strong|saturated",
}
ADJUSTMENTS: Mapping[str, str] = {
    "darker": "darker|dark|dim|dimmer|darken|darkened|less bright|deeper|underexposed",
    "lighter": "lighter|light|brighter|bright|brighten|lighten|whiten|whiter|whitened|bleach|bleached|lit|lightened|"
    "brightened",
    "vivid": "vivid|vibrant|more saturated|saturated|more colourful|colourful|saturate|more vivid|punchy",
    "muted": "muted|desaturated|less saturated|faded colours|dull|washed out|desaturate|less colourful|subdued",
    "warmer": "warmer|warm|warm colours|warm tones|warm tone",
    "cooler": "cooler|cool colours|cool tones|colder|cold|cool tone|chilly",
    "tanned": "tan|tanned|sun tanned|suntan|sunkissed|sunburnt|sunburned|darker skin",
    "smooth": "smooth|smoother|smoothed|airbrush|airbrushed|beauty filter|retouch|retouched|flawless|clear skin|soft skin|silky skin|"
    "perfect skin|no wrinkles|fewer wrinkles|less wrinkles|without wrinkles|remove wrinkles|remove the wrinkles|remove her wrinkles|"
    "remove his wrinkles|remove my wrinkles|remove blemishes|remove acne|remove pimples|remove spots|remove skin imperfections",
    "pale": "pale|paler|fair|pallid|fair skinned|pale skinned",
}

MATERIALS: Mapping[str, str] = {
    "bronze": "bronze|bronzed|bronze statue",
    "copper": "copper",
    "verdigris": "verdigris|oxidised copper|oxidized copper|statue of liberty|patina|green copper|weathered copper",
    "gold": "gold|golden|gilded|gold plated|gilt|oscar statue|oscar statuette",
    "silver": "silver|pewter",
    "chrome": "chrome|steel|metal|metallic|mercury|liquid metal|aluminium|aluminum|stainless steel|robot|cyborg|"
    "android|terminator|mirror|titanium",
    "iron": "iron|cast iron|lead|dark metal",
    "marble": "marble|alabaster|statue|sculpture|bust|classical statue|greek statue|roman statue|roman bust|"
    "greek sculpture|michelangelo",
    "stone": "stone|rock|granite|concrete|sandstone|limestone|gargoyle|cement|stone statue|petrified",
    "obsidian": "obsidian|onyx|black marble|black stone|volcanic glass|black glass",
    "jade": "jade|green stone|jadeite|malachite",
    "wood": "wood|wooden|timber|carved wood|oak|walnut|pinocchio|puppet|marionette|carved from wood|wood carving|"
    "tree|bark",
    "clay": "clay|terracotta|terra cotta|claymation|plasticine|play doh|earthenware|mud|red clay|wallace and gromit",
    "plaster": "plaster|gypsum|plaster cast|chalk stone|stucco|paper mache|papier mache",
    "porcelain": "porcelain|ceramic|china doll|bone china|porcelain doll|doll",
    "ice": "ice|frozen|icy|ice sculpture|frost|ice queen",
    "glass": "glass|crystal|diamond|transparent glass|quartz",
    "wax": "wax|waxwork|candle wax|wax figure|madame tussauds",
    "chocolate": "chocolate|milk chocolate|dark chocolate|chocolate statue",
    "plastic": "plastic|vinyl|rubber|action figure|toy|latex|barbie|mannequin|figurine|balloon",
}
FORCE_MATERIAL = words(
    """
    statue sculpture statuette bust made carved cast solid metal metallic stone figure plated leaf material
    sculpted
    """
)

LOOKS: Mapping[str, str] = {
    "pencil": "pencil|pencil sketch|sketch|pencil drawing|drawing|graphite|sketched|hand drawn|drawn|sketchy|"
    "pencil drawn|line art|lineart",
    "coloured pencil": "coloured pencil|colour pencil|coloured pencils|crayon|crayons|colour sketch|coloured sketch|"
    "coloured drawing|coloured pencil drawing",
    "charcoal": "charcoal|charcoal drawing|charcoal sketch|chalk drawing|conte",
    "ink": "ink|ink drawing|pen drawing|pen and ink|ink sketch|manga|inked|etching|engraving|pen sketch|ballpoint|"
    "biro|crosshatch|cross hatching|linocut",
    "watercolour": "watercolour|watercolour painting|aquarelle|gouache|watercolours|water paint",
    "oil": "oil|oil painting|oil paint|oils|painting|painted|acrylic|oil on canvas|canvas|paint|painterly|"
    "classical painting|oil painted|brush strokes",
    "pastel": "pastel|pastel drawing|pastel painting|soft pastel|chalk pastel|pastels|pastel art",
    "cartoon": "cartoon|cartoonish|cartoons|animated|animation|disney|south park|futurama|"
    "rick and morty|gta|gta 5|gta v|grand theft auto|2d|2d animation|"
    "looney tunes|"
    "tintin|toon|cel shaded|cel shading|"
    "caricature|family guy|cartoon character|vector art",
    "anime": "anime|studio ghibli|ghibli|anime character|japanese animation|miyazaki|makoto shinkai",
    "3d cartoon": "pixar|3d cartoon|3d animation|pixar character|dreamworks|3d render|cgi|3d animated|video game|"
    "game character|fortnite|sims",
    "comic": "comic|comic book|comics|lichtenstein|graphic novel|marvel|superhero comic|halftone|comic strip|"
    "spider verse|spiderverse",
    "pixel art": "pixel|pixel art|pixelated|pixelate|8 bit|8bit|16 bit|pixels|pixelart|retro game|nintendo|pixel art game|pixel game|"
    "gameboy|game boy|arcade game|retro video game",
    "blocks": "lego|legos|blocks|block|bricks|toy bricks|minecraft|voxel|voxels|building blocks|lego brick|"
    "lego bricks|lego character|lego minifigure|minifigure",
    "mosaic": "mosaic|tiles|tile|tesserae|roman mosaic|byzantine mosaic|byzantine",
    "pop art": "pop art|warhol|andy warhol|shepard fairey|screen print|screenprint|silkscreen|hope poster",
    "poster": "poster|posterised|posterized|flat colours|stencil|banksy|graffiti|street art|vector|flat design|"
    "low poly|paper cut|papercut",
    "film": "film|analog film|analogue film|kodak|35mm|teal and orange|movie|cinematic|vintage|retro|polaroid|old film|film look|"
    "seventies|70s|instagram|80s|90s|1980s|1990s|eighties|nineties|vhs|camcorder|lomography|hollywood|film grain",
    "sepia": "sepia|old photo|old photograph|victorian|daguerreotype|antique photo|antique|wild west|19th century|"
    "1800s|1900s|1910s|1920s|1930s|twenties|roaring twenties|"
    "western|old timey",
    "noir": "noir|film noir|sin city|detective movie",
    "black and white": "black and white|monochrome|greyscale|grey scale|bw|b w|b and w|colourless|silent film|"
    "old movie|1940s|1950s|50s|fifties",
    "neon": "neon|neon lights|neon light|cyberpunk|synthwave|vaporwave|blade runner|tron|neon glow|retrowave|"
    "futuristic|rave|neon signs|night club|nightclub",
    "hologram": "hologram|holographic|holo|star wars hologram",
    "thermal": "thermal|heat map|thermal camera|infrared|heatmap|thermal vision|predator vision|heat vision",
    "negative": "negative|inverted|invert|x ray|xray|inverted colours|photo negative",
    "night vision": "night vision|night vision goggles|green night vision|nightvision",
    "blur": "blur|blurred|blurry|bokeh|defocus|defocused|out of focus|soft focus|depth of field|blurring",
    "dream": "dreamy|dream|ethereal|soft glow|fairy tale|fairytale|angelic|heavenly|romantic|fantasy|magical",
}

# The 26 styles of the embedded network, named after what they look like on portraits.
STYLES: Mapping[int, tuple[str, str]] = {
    0: ("sandy pastel", "sandy pastel"),
    1: ("black contours on yellow", "leger|black contours|fernand leger"),
    2: ("soft impressionism", "renoir|degas|soft impressionism|berthe morisot|manet"),
    3: ("bold abstraction", "kandinsky|abstract|abstract art|abstract painting|bold abstraction|delaunay"),
    4: ("warm pointillism", "seurat|pointillism|pointillist|signac|dotted painting|pointillistic"),
    5: ("orange expressionism", "munch|edvard munch|the scream|scream|expressionism|expressionist|"
        "expressionist painting"),
    6: ("violet bubbles", "violet bubbles|redon"),
    7: ("fauvism", "fauvism|fauvist|matisse|henri matisse|fauve|macke"),
    8: ("cyan and magenta print", "cyan and magenta print|risograph|riso"),
    9: ("red and teal stencil", "red and teal stencil|keith haring|haring"),
    10: ("old master in umber", "rembrandt|old master|leonardo|da vinci|leonardo da vinci|mona lisa|vermeer|"
        "caravaggio|renaissance|baroque|"
         "renaissance painting|titian|velazquez|goya|old masters"),
    11: ("ochre lithograph", "klimt|gustav klimt|lithograph|toulouse lautrec|schiele|art nouveau|mucha"),
    12: ("mauve impressionism", "monet|claude monet|impressionism|impressionist|impressionist painting|"
        "impressionistic|water lilies"),
    13: ("green outlines", "gauguin|green outlines|art deco"),
    14: ("pale blue wash", "pale blue wash|blue wash|picasso blue period|blue period"),
    15: ("stained glass lines", "stained glass|stained glass window|tiffany|chagall|church window|leaded glass"),
    16: ("crayon hatching", "crayon hatching"),
    17: ("woven red grid", "mondrian|piet mondrian|woven|bauhaus|geometric|klee|paul klee|de stijl"),
    18: ("brown woodcut", "woodcut|durer|brown woodcut|wood print|albrecht durer|block print"),
    19: ("starry night", "van gogh|vincent van gogh|starry night|vangogh|gogh|the starry night|post impressionism|"
        "post impressionist"),
    20: ("crimson dusk", "crimson dusk|rothko"),
    21: ("cubism", "cubism|cubist|picasso|pablo picasso|braque|cubist painting|guernica"),
    22: ("dark outlines", "kirchner|cezanne|paul cezanne|dark outlines|modigliani"),
    23: ("misty oils", "turner|misty oils|romanticism|friedrich|caspar david friedrich"),
    24: ("blue and cream woodblock", "hokusai|ukiyo e|great wave|the great wave|japanese woodblock|woodblock|"
        "japanese print|woodblock print|hiroshige|japanese painting"),
    25: ("dark palette knife", "palette knife|dark palette knife|pollock|jackson pollock|auerbach|lucian freud"),
}  # fmt: skip

MOODS: Mapping[str, str] = {
    "night": "night|at night|nighttime|night time|in the dark|darkness|nocturnal",
    "moonlight": "moonlight|moonlit|moon|full moon|moon light",
    "sunset": "sunset|sundown|dusk|evening light|at sunset|evening|twilight sky",
    "golden hour": "golden hour|golden light|late sun|golden sunlight|autumn|fall colours|autumnal|sunrise|dawn|"
    "morning light|morning",
    "candlelight": "candlelight|candle light|candlelit|firelight|fire light|campfire|fireplace|by the fire|"
    "torch light|torchlight|candle|lantern",
    "sunny": "sunny|sunlight|sunshine|sunny day|summer|bright day|daylight|midday|noon|tropical|spring",
    "overcast": "overcast|cloudy|fog|foggy|mist|misty|grey day|rain|rainy|gloomy|hazy",
    "winter": "winter|snow|snowy|wintery|wintry|cold light|arctic|christmas|blizzard|cold day",
    "underwater": "underwater|under water|ocean light|deep sea|submerged|under the sea",
    "blue hour": "blue hour|twilight|blue light|blue lighting|cold blue light",
    "red light": "red light|red lighting|darkroom|alarm light|inferno|lava|hell",
    "green light": "green light|green lighting|matrix|the matrix|toxic light",
    "purple light": "purple light|purple lighting|pink light|pink lighting|magenta light|disco|party lights|"
    "club lights|disco light|stage lights|concert",
    "dramatic": "dramatic|dramatic light|dramatic lighting|moody|low key|chiaroscuro|spotlight|high contrast|"
    "contrast|more contrast|side light",
    "horror": "horror|horror movie|scary|creepy|spooky|halloween|haunted|scary movie",
    "studio": "studio light|studio lighting|high key|beauty light|soft light|softbox|studio|soft lighting|"
    "flattering light|ring light",
    "warm light": "warm light|warm lighting|cosy|cozy|lamp light|tungsten|cosy light",
    "cool light": "cool light|cool lighting|cold lighting|moody blue|clinical|hospital light|fluorescent light",
}

CHARACTERS: Mapping[str, str] = {
    "zombie": "zombie|zombies|undead|walking dead|corpse|dead|ghoul|rotting|walker|zombified",
    "vampire": "vampire|dracula|vampires|nosferatu|twilight vampire|count dracula",
    "clown": "clown|clown makeup|circus clown|clowns|pennywise|ronald mcdonald",
    "joker": "joker|the joker|harley quinn",
    "ghost": "ghost|ghostly|phantom|spirit|spectre|specter|white walker",
    "alien": "alien|martian|extraterrestrial|yoda|grinch|orc|goblin|shrek|ogre",
    "hulk": "hulk|the hulk|incredible hulk|she hulk",
    "blue alien": "avatar|navi|na vi|smurf|smurfs|pandora|mystique",
    "devil": "devil|demon|satan|demonic|hellboy|lucifer|darth maul",
    "mime": "mime|mime artist|geisha|pantomime",
    "goth": "goth|gothic|emo|goth makeup|punk",
    "elf": "elf|elven|tolkien elf|tolkien|legolas|elrond|fairy|elsa|white witch|galadriel",
    "simpsons": "simpsons|the simpsons|simpson|simpsons character|homer simpson|bart simpson|marge simpson|lisa simpson",
    "silver fox": "silver fox",
    "rainbow": "rainbow|rainbow coloured|multicoloured|multicolored|unicorn|pride|multi coloured|iridescent|"
    "all colours",
    "eye shadow": "eye shadow|eyeshadow|eyeliner|eye liner|smoky eyes|smokey eyes|smoky eye|eye makeup|mascara",
    "blusher": "blusher|rouge|rosy cheeks|red cheeks|blushing|pink cheeks|flushed|flushed cheeks",
    "make-up": "makeup|make up|made up|glamour makeup|glam|glamorous|glamour",
    "gloss": "glossy|gloss|shiny lips",
}


class Entry(NamedTuple):
    """One meaning of a phrase: kind is region, colour, shade, adjustment, material, look, style, mood, character or impossible."""

    kind: str
    name: str


def join(phrase: str) -> str:
    """The form in which phrases are compared: no spaces, hyphens or apostrophes."""
    return phrase.replace(" ", "").replace("-", "").replace("'", "")


@functools.cache
def colours() -> Mapping[str, tuple[float, float, float]]:
    """Colour name (joined) to sRGB in 0..1: all CSS names, then the everyday ones, which win."""
    from PIL import ImageColor

    table = {**ImageColor.colormap, **EXTRA_COLOURS, **HAIR_COLOURS}
    named = {}
    for name, value in table.items():
        red, green, blue = ImageColor.getrgb(value)[:3]
        named[join(name.replace("gray", "grey"))] = (red / 255, green / 255, blue / 255)
    return named


@functools.cache
def vocabulary() -> Mapping[str, tuple[Entry, ...]]:
    """Joined phrase to its meanings; a word may have several (gold is a colour and a material)."""
    index: dict[str, list[Entry]] = {}

    def put(phrase: str, kind: str, name: str) -> None:
        entry = Entry(kind, name)
        entries = index.setdefault(join(phrase), [])
        if entry not in entries:
            entries.append(entry)

    tables: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("region", REGION_WORDS),
        ("shade", SHADES),
        ("adjustment", ADJUSTMENTS),
        ("material", MATERIALS),
        ("look", LOOKS),
        ("mood", MOODS),
        ("character", CHARACTERS),
        ("impossible", IMPOSSIBLE),
    )
    for kind, table in tables:
        for name, phrases in table.items():
            for phrase in phrases.split("|"):
                put(phrase, kind, name)
    for number, (name, phrases) in STYLES.items():
        for phrase in {name, *phrases.split("|"), f"style {number}", f"painting style {number}"}:
            put(phrase, "style", str(number))
    for name in colours():
        put(name, "colour", name)
    return {phrase: tuple(entries) for phrase, entries in index.items()}
