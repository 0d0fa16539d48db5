"""Which of MusiCNN's 50 MSD and 50 MTT labels ought to rise when a prompt asks for a tag, as data.

The opposite question, which tag a label is evidence for, is `config/styles/musicnn_map.yaml`'s and needs thresholds;
every label it trusts for a tag stands here under that tag too. Here a sub-genre may also stand for the family that the
tagger knows. Keys are canonical tags of the taxonomy, or words that its longer tags contain ("felt piano").
Production and place ("vinyl crackle", "rain") have no label and stay unmapped: a guess would reward being mapped.
"""

_INSTRUMENTAL = ("msd:instrumental", "mtt:no vocals", "mtt:no vocal", "mtt:no voice")
_VOCALS = ("mtt:vocal", "mtt:vocals", "mtt:voice", "mtt:singing")
_FEMALE = (
    "msd:female vocalists",
    "msd:female vocalist",
    "mtt:female vocal",
    "mtt:female voice",
    "mtt:female",
    "mtt:woman",
)
_MALE = ("msd:male vocalists", "mtt:male vocal", "mtt:male voice", "mtt:male", "mtt:man")
_ELECTRONIC = ("msd:electronic", "msd:electronica", "msd:electro", "mtt:electronic")

TAG_LABELS: dict[str, tuple[str, ...]] = {
    # Genre. The tagger knows families; lofi itself is heard as chill-out, and a boom-bap beat as hip hop.
    "lofi": ("msd:chillout", "msd:chill"),
    "chillhop": ("msd:chillout", "msd:chill", "msd:Hip-Hop"),
    "chillout": ("msd:chillout", "msd:chill"),
    "chillwave": ("msd:chillout", "mtt:synth"),
    "downtempo": ("msd:chillout", "mtt:slow"),
    "hip hop": ("msd:Hip-Hop", "mtt:beat"),
    "trip hop": ("msd:chillout", "msd:electronic"),
    "boom bap": ("msd:Hip-Hop", "mtt:beat"),
    "trap": ("msd:Hip-Hop", "mtt:beat"),
    "rap": ("msd:Hip-Hop",),
    "jazz": ("msd:jazz",),
    "jazzhop": ("msd:jazz", "msd:Hip-Hop"),
    "bossa nova": ("msd:jazz", "msd:easy listening"),
    "soul": ("msd:soul",),
    "neo soul": ("msd:soul", "msd:rnb"),
    "r&b": ("msd:rnb",),
    "funk": ("msd:funk",),
    "blues": ("msd:blues",),
    "folk": ("msd:folk",),
    "indie folk": ("msd:folk", "msd:indie"),
    "indie pop": ("msd:indie pop", "msd:indie"),
    "house": ("msd:House", "mtt:dance"),
    "electronic": _ELECTRONIC,
    "synthwave": (*_ELECTRONIC, "mtt:synth"),
    "vaporwave": (*_ELECTRONIC, "mtt:synth"),
    "ambient": ("msd:ambient", "mtt:ambient"),
    "new age": ("mtt:new age",),
    "classical": ("mtt:classical", "mtt:classic"),
    "neoclassical": ("mtt:classical", "mtt:classic"),
    "easy listening": ("msd:easy listening",),
    # Mood. Only MSD's listeners tagged moods; these are the words Last.fm's users share with curators.
    "chill": ("msd:chill", "msd:chillout"),
    "relaxed": ("msd:chillout", "msd:easy listening"),
    "calm": ("msd:chillout", "mtt:quiet", "mtt:soft"),
    "peaceful": ("msd:chillout", "mtt:quiet", "mtt:soft"),
    "mellow": ("msd:Mellow",),
    "sad": ("msd:sad",),
    "melancholic": ("msd:sad",),
    "happy": ("msd:happy",),
    "uplifting": ("msd:happy",),
    "dreamy": ("msd:ambient", "msd:beautiful"),
    "soft": ("mtt:soft",),
    # Instruments. MTT's players named what they heard; an electric piano is heard as a piano, a pad as a synth.
    "piano": ("mtt:piano",),
    "rhodes": ("mtt:piano",),
    "wurlitzer": ("mtt:piano",),
    "guitar": ("mtt:guitar", "msd:guitar"),
    "acoustic guitar": ("mtt:guitar", "msd:guitar", "msd:acoustic"),
    "nylon guitar": ("mtt:guitar", "msd:guitar", "msd:acoustic"),
    "acoustic": ("msd:acoustic",),
    "synth": ("mtt:synth",),
    "synth pad": ("mtt:synth", "mtt:ambient"),
    "strings": ("mtt:strings",),
    "violin": ("mtt:violin", "mtt:strings"),
    "cello": ("mtt:cello", "mtt:strings"),
    "harp": ("mtt:harp",),
    "harpsichord": ("mtt:harpsichord",),
    "flute": ("mtt:flute",),
    "sitar": ("mtt:sitar", "mtt:indian"),
    "choir": ("mtt:choir", "mtt:choral"),
    "drums": ("mtt:drums", "mtt:beat"),
    "drum machine": ("mtt:drums", "mtt:beat", "mtt:beats"),
    # Tempo. Two labels exist, and they are about pulse, not beats per minute.
    "slow": ("mtt:slow",),
    "uptempo": ("mtt:fast",),
    # Voice. "instrumental" is a claim that nobody sings, which MTT asks in three ways.
    "instrumental": _INSTRUMENTAL,
    "vocals": _VOCALS,
    "female vocals": (*_FEMALE, *_VOCALS),
    "male vocals": (*_MALE, *_VOCALS),
}
