"""Whether an instruction is English: the built-in editor reads nothing else and says so."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from ..errors import InputError
from .lexicon import vocabulary
from .limits import words

# Words that people use for edits and that are no English words, without accents.
COMMON: Mapping[str, frozenset[str]] = {
    "German": words(
        """
        mach mache macht gib gebe verwandle verwandel farbe farben haare haar haaren augen lippen haut gesicht hintergrund kleid
        hemd jacke ihr ihre ihren ihm ihn seine seinen sie ich und oder mit ohne eine einen einer einem dem nicht bitte wie als
        zu blau blaue blauen rot rote roten grun grune gruen gelb gelbe schwarz schwarze weiss weisse braun rosa lila aussehen
        bleistift zeichnung olgemalde gemalde comicstil stil
        """
    ),
    "French": words(
        """
        faites fais rends rendre rendez mets mettez donnez lui leur transformez changez les une sa ses mon cheveux yeux levres
        peau visage robe veste chemise arriere avec sans et dans comme du aux bleu bleus bleue rouge rouges vert verts verte
        jaune noir noire noirs blanc blanche roses blonds dessin crayon peinture huile
        """
    ),
    "Spanish": words(
        """
        haz hazle hacer pon ponle ponlo dale convierte convierta transforma cambia cambiar cabello pelo ojos labios piel cara
        rostro fondo vestido camisa chaqueta su sus los las una unos con sin que como estilo estatua azul azules rojo rojos roja
        verde verdes amarillo negro negra blanco blanca rubio rubia rosa morado dibujo lapiz pintura oleo bronce
        """
    ),
    "Italian": words(
        """
        fai rendi metti dai trasforma cambia capelli occhi labbra pelle viso sfondo vestito camicia giacca suo sua suoi gli il
        una uno senza che sia stile statua nel blu azzurri azzurro rosso rossi rossa giallo nero neri nera bianco bianca biondi
        disegno matita pittura olio bronzo
        """
    ),
    "Portuguese": words(
        """
        faca faz coloque ponha transforme mude cabelo olhos labios pele rosto fundo vestido camisa jaqueta seu sua dela dele uma
        sem que seja como estilo estatua azul azuis vermelho vermelhos verde amarelo preto branco loiro rosa desenho lapis
        """
    ),
}
_WORD = re.compile(r"[^\W\d_]+")


def check_language(text: str) -> None:
    """Raise InputError if ``text`` is clearly not English: in another script, or made of another language's common words."""
    letters = [character for character in text if character.isalpha()]
    latin = [character for character in letters if unicodedata.name(character, "").startswith("LATIN")]
    if len(latin) * 2 < len(letters):
        raise InputError(
            "The built-in editor reads English only. Write the instruction in English, such as 'give her blue hair'."
        )
    plain = "".join(
        character
        for character in unicodedata.normalize("NFKD", text.lower().replace("ß", "ss"))
        if not unicodedata.combining(character)
    )
    found, english = _WORD.findall(plain), vocabulary()
    hits, language = max(
        (sum(word in known and word not in english for word in found), name) for name, known in COMMON.items()
    )
    if hits * 2 >= len(found) and hits >= min(2, len(found)) and hits > 0:
        raise InputError(
            f"This looks like {language}, but the built-in editor reads English only. Write it in English."
        )
