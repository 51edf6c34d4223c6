"""What the built-in editor cannot do, and words that say nothing to it."""

from __future__ import annotations

from collections.abc import Mapping


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# What the built-in editor cannot do, by what it would take; the value is how the answer names it.
IMPOSSIBLE: Mapping[str, str] = {
    "adding objects": "glasses|sunglasses|spectacles|hat|cap|crown|helmet|mask|beanie|earring|earrings|necklace|"
    "jewellery|jewelry|tattoo|tattoos|"
    "piercing|piercings|scar|scars|freckles|freckle|flowers|flower|horns|wings|headphones|tie|bow tie|headband|veil|"
    "turban|monocle|goggles|halo|tiara|bindi|"
    "eyepatch|eye patch|pipe|cigarette|fangs|ring|gloves|bag|cat ears|bunny ears|butterflies|stars|text|logo|flag|"
    "fireworks|cowboy hat|santa hat|"
    "bandana|ribbon|watch|sword|gun|phone|balloons|dragon|car|dog|cat",
    "growing or shaping hair": "beard|moustache|mustache|goatee|stubble|sideburns|bald|longer hair|shorter hair|"
    "long hair|short hair|curly|wavy|straight hair|"
    "afro|mohawk|dreadlocks|buzz cut|curlier|shaved|buzzcut|bob|pigtails|shaven|balder|bangs hair|hairy",
    "changing age": "older|younger|wrinkles|wrinkled|old|young|baby|age|elderly|aged|teenager|toddler|aging|ageing|infant|grandmother|"
    "grandfather|old man|old woman|grandma|grandpa",
    "changing the shape of face or body": "fat|fatter|thin|thinner|slim|slimmer|muscular|chubby|skinny|taller|"
    "shorter|bigger|smaller|bigger eyes|big eyes|"
    "big|small|nose job|handsome|beautiful face|ugly|longer|larger|wider|pointy|elf ears|pointy ears|buff|obese|"
    "round|swollen|plump",
    "changing expression or pose": "smile|smiling|smiles|laugh|laughing|cry|crying|angry|sad|happy|frown|frowning|"
    "wink|winking|open mouth|close eyes|closed eyes|"
    "dance|dancing|look left|look right|surprised|turn around|talk|speak|sing|singing|tears|scared|serious|sleepy|"
    "kiss|looking|smirk",
    "changing who it is": "obama|trump|biden|einstein|elon|musk|mark|zuckerberg|batman|superman|spiderman|spider|"
    "wonder|celebrity|king|queen|"
    "princess|prince|harry|potter|harry potter|gender|male|female|werewolf|wolf|tiger|lion|bear|monkey|ape|gorilla|panda|fox|"
    "mermaid|pirate|ninja|samurai|knight|soldier|"
    "astronaut|cowboy|wizard|witch|angel|santa|skeleton|skull|mummy|monster|animal|dwarf|hobbit|viking|gandalf|"
    "tom|cruise|taylor|swift|"
    "elephant|horse|rabbit|bunny|reptile|lizard|snake|bird|centaur|minotaur|medusa|cheetah|leopard|pumpkin|barack|"
    "donald|jolie|frankenstein",
    "putting in a new place": "beach|forest scene|jungle|city|street|mountain|mountains|space|moon surface|desert|"
    "paris|eiffel tower|tokyo|castle|park|office|"
    "library|garden|sea|ocean|island|field|meadow|church|new york|galaxy|universe|mars|stadium|cafe|restaurant|"
    "kitchen|pyramid|waterfall|lake|river|spaceship|woods",
    "replacing a garment": "stripes|striped|polka dots|plaid|floral|hawaiian|kimono|sari|tuxedo|bikini|swimsuit|"
    "naked|nude|topless|undress|shirtless|"
    "polka dot|chequered|checkered|camouflage|tartan|toga|sleeveless|underwear",
    "changing the fabric": "leather|silk|satin|velvet|wool|woollen|cotton|fur|furry|lace|linen|knitted|sequins|"
    "sequin|suede|corduroy",
    "moving or cropping": "zoom|crop|rotate|flip|mirror image|closer|slow motion|faster|slower|reverse|upside down|"
    "tilt|camera|resize",
    "painting patterns on the face": "face paint|facepaint|face painting|body paint|war paint|warpaint|tiger stripes|sugar skull|"
    "day of the dead|tribal paint|henna",
    "changing one side alone": "left|right|left eye|right eye|left side|right side|one eye|half|upper half|lower half",
    "removing things": "erase|cut out|delete|get rid|eliminate",
}

FILLER = words(
    """
    a an the this that these those of in on to into at with from by for as like it its is are be being been was
    were and or so too also very really quite much more bit little please can could would you i we want wish
    need let lets now then just turn make makes making made give gives giving change changes changed changing
    convert transform render style styled styles stylise stylised stylize stylized look looks looking looked
    appear appears seem become becomes became put set apply add adding have has had having get got effect filter
    version form kind sort type colour coloured colours colourful shade tone tones hue dye dyed dyeing paint
    tint tinted dress dressed wear wearing wears out up over under across some any fully completely totally
    entirely slightly natural real realistic nice lovely flat seen beautiful cool great awesome perfect good
    pretty gorgeous stunning funny amazing elegant classic classical traditional famous art artistic artwork
    artist work piece figure figurine old-fashioned stylish fashionable should shall must may might if were one
    two her his their our your my me him she he they them who which what where when mode theme themed vibe vibes
    feel feeling atmosphere mood lighting lit light lights glow similar inspired based resembling replace swap
    keep keeping use using do does doing done show create creating through while during own same new different
    covered wrapped made carved sculpted cast solid surface texture textured material skinned haired eyed lipped
    backgrounded drawn drawing painted painting there here not no than both each every part parts area areas
    side hello hi thanks thank ok okay design quality hd 4k detailed detail ultra super highly professional
    traditionally century era time day wash washed piece pieces leaf plated deep strong full coat layer long game season roman greek
    """
)
