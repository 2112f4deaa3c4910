"""A drawing for each of the 80 MS-COCO categories, in a small language.

A drawing is a string of shapes separated by ";" and painted in this order. A shape is a letter, a
colour and numbers. Coordinates are percentages, x to the right and y down:

    P colour  x y x y x y ...          polygon
    R colour  x0 y0 x1 y1              rectangle
    E colour  x y rx ry [from to]      ellipse, or the part of it between two angles
    D colour  r  x y x y ...           discs of one radius
    L colour  width  x y x y ...       stroke along points
    S colour  width  x y x y ...       separate strokes, each between two points
    A colour  width  x y rx ry from to stroke along an arc

Angles are in degrees, clockwise from the right. Colours are names in `PALETTE`, chosen at random
within its ranges for every instance ("paint" and "cloth" are any colour). A trailing "-" or "+"
means darker or lighter. "|" separates alternative drawings of a category; an instance uses one.

Some categories share a silhouette on purpose (cup, vase and bottle; orange, ball and clock; fork,
knife and spoon; the four-legged animals): when small, they are hard to distinguish.
"""

# colour: ranges of hue (turns), saturation and value
PALETTE = {
    "paint": ((0.00, 1.00), (0.20, 0.90), (0.30, 0.95)),
    "cloth": ((0.00, 1.00), (0.10, 0.80), (0.20, 0.90)),
    "skin": ((0.04, 0.08), (0.25, 0.60), (0.40, 0.95)),
    "dark": ((0.00, 1.00), (0.00, 0.25), (0.08, 0.28)),
    "white": ((0.00, 1.00), (0.00, 0.10), (0.82, 1.00)),
    "steel": ((0.50, 0.65), (0.00, 0.15), (0.55, 0.85)),
    "glass": ((0.45, 0.60), (0.08, 0.30), (0.65, 0.92)),
    "screen": ((0.45, 0.70), (0.10, 0.70), (0.15, 0.75)),
    "wood": ((0.05, 0.11), (0.25, 0.70), (0.35, 0.80)),
    "fur": ((0.04, 0.11), (0.05, 0.65), (0.25, 0.90)),
    "bread": ((0.08, 0.12), (0.35, 0.60), (0.70, 0.90)),
    "leaf": ((0.24, 0.38), (0.40, 0.80), (0.30, 0.65)),
    "red": ((0.96, 1.03), (0.65, 0.95), (0.60, 0.95)),
    "orange": ((0.05, 0.10), (0.75, 1.00), (0.75, 1.00)),
    "yellow": ((0.12, 0.17), (0.60, 0.95), (0.80, 1.00)),
    "green": ((0.30, 0.40), (0.50, 0.90), (0.50, 0.90)),
    "blue": ((0.57, 0.65), (0.55, 0.90), (0.50, 0.95)),
    "brown": ((0.04, 0.09), (0.45, 0.75), (0.30, 0.60)),
    "pink": ((0.92, 1.00), (0.20, 0.50), (0.80, 1.00)),
}

# silhouettes shared by several categories
LEGS = "S fur- 7 30 52 29 92 64 52 65 92; S fur 7 23 50 21 94 71 50 72 94"
FOUR_LEGGED = f"{LEGS}; E fur 47 47 31 16"
HORSE = (
    f"{FOUR_LEGGED}; P fur 62 44 74 12 82 8 97 28 93 35 84 29 76 56;"
    " P dark 60 38 70 10 79 5 77 14 68 40; P fur 77 12 80 0 84 10; E dark 84 17 2 2"
)
SMALL_LEGS = "S fur- 8 34 60 33 88 62 60 63 88; S fur 8 25 58 24 90 70 58 71 90"
WHEELS = "D dark 11 22 70 78 70; D steel 5 22 70 78 70"
BALL = "50 50 46 46"
SCREEN = "R dark 2 12 98 74; R screen 6 16 94 70"
SLAB = "R dark 30 2 70 98"

# in the order of the MS-COCO category ids
DRAWINGS = {
    "person": "S cloth 14 43 62 40 97 57 62 60 97; S paint 9 35 31 27 58 65 31 73 58; "
    "D skin 5 26 61 74 61; P paint 33 27 67 27 63 64 37 64; E skin 50 14 10 12; "
    "E dark 50 10 11 10 180 360 | L cloth 13 46 60 26 94; L cloth 13 54 60 64 76 76 94; "
    "L paint 9 38 32 22 46 30 58; L paint 9 62 32 84 20; E skin 86 17 5 5; "
    "P paint 34 26 66 26 60 64 40 64; E skin 52 13 10 12; E dark 51 9 11 9 170 350 "
    "| P paint 8 98 14 66 40 54 60 54 86 66 92 98; R skin 43 44 57 58; E skin 50 30 17 22; "
    "E dark 50 25 18 19 180 360; D dark 2 43 31 57 31; L red 2 45 42 55 42",
    "bicycle": "A dark 5 22 66 19 19 0 360; A dark 5 78 66 19 19 0 360; "
    "L paint 4 22 66 40 34 68 34; L paint 4 22 66 50 66 68 34; L paint 4 40 34 50 66; "
    "L paint 4 78 66 66 24 76 20; L dark 6 33 30 45 30",
    "car": "P blue 2 60 6 48 24 44 36 26 70 26 84 44 97 50 98 70 2 70; "
    "P glass 28 44 38 30 51 30 51 44; P glass 55 44 55 30 68 30 78 44; E yellow 95 55 3 4; "
    f"{WHEELS}",
    "motorcycle": "A dark 9 20 70 15 15 0 360; A dark 9 80 70 15 15 0 360; "
    "L steel 5 80 70 66 30 76 26; P paint 22 56 42 40 68 38 78 52 60 70 38 70; "
    "E steel 50 66 13 9; P dark 14 42 46 38 46 46 18 50; E yellow 74 38 5 5; "
    "L steel 5 44 74 14 80",
    "airplane": "P steel- 50 48 60 48 46 24 36 24; P paint 8 50 2 26 13 26 26 48; "
    "E white 50 52 48 8; P steel 44 54 62 54 38 86 27 86; L dark 3 24 50 84 50; "
    "P paint- 4 52 20 52 8 62 2 62",
    "bus": "R yellow 3 22 97 72; R glass 7 30 93 50; "
    "S paint 3 28 30 28 50 50 30 50 50 72 30 72 50; L cloth 4 3 60 97 60; R yellow 93 62 97 67; "
    f"{WHEELS}",
    "train": "P paint 2 26 78 26 97 50 97 70 2 70; R glass 8 34 20 48; R glass 26 34 38 48; "
    "R glass 44 34 56 48; P glass 70 34 78 34 89 50 70 50; L cloth 4 2 58 97 58; "
    "L dark 4 0 80 100 80; D dark 6 14 74 30 74 64 74 82 74",
    "truck": "R green 2 18 65 68; P cloth 67 34 86 34 97 52 97 70 67 70; "
    f"P glass 72 39 84 39 91 53 72 53; R dark 2 66 97 71; R yellow 93 58 97 64; {WHEELS}",
    "boat": "L wood 4 49 62 49 6; P white 53 8 53 56 88 56; P cloth 45 18 45 56 18 56; "
    "P paint 4 62 96 62 82 86 18 86; L paint- 4 6 66 94 66",
    "traffic light": "R steel 47 68 53 100; R dark 35 4 65 70; E red 50 17 9 9; "
    "E yellow 50 37 9 9; E green 50 57 9 9",
    "fire hydrant": "R red 18 48 82 62; R red 33 36 67 92; E red 50 34 18 17; R red- 25 90 75 98; "
    "E yellow 50 55 8 8; R yellow 45 10 55 20; L red- 4 30 36 70 36",
    "stop sign": "R steel 46 66 54 100; P white 33 2 67 2 88 20 88 50 67 70 33 70 12 50 12 20; "
    "P red 34 6 66 6 84 22 84 48 66 66 34 66 16 48 16 22; R white 24 29 76 41",
    "parking meter": "R steel- 46 58 54 100; R steel 32 28 68 62; E steel 50 28 18 22 180 360; "
    "E glass 50 27 13 15 180 360; R dark 37 36 63 42; R red 46 48 54 56",
    "bench": "S dark 5 14 30 14 88 86 30 86 88; R wood 4 28 96 36; R wood 4 40 96 48; "
    "P wood- 4 54 96 54 100 64 0 64",
    "bird": "S dark 2 48 60 46 76 55 60 56 76; E paint 50 50 25 14; E paint 75 37 11 10; "
    "P yellow 84 34 97 39 84 42; P paint- 30 46 3 36 6 56; P paint- 38 46 54 42 62 56 44 58; "
    "E dark 78 35 2 2 | P paint- 2 34 28 32 47 46 53 46 72 32 98 34 68 46 56 64 44 64 32 46; "
    "E paint 50 54 8 14; E paint 50 40 6 6; P yellow 48 36 52 36 50 29",
    "cat": "A fur 7 72 78 16 18 -80 120; E fur 50 70 21 26; E fur 50 34 20 17; "
    "P fur 31 32 31 6 48 20; P fur 69 32 69 6 52 20; D yellow 4 42 33 58 33; E dark 42 33 1 3; "
    f"E dark 58 33 1 3; P pink 47 40 53 40 50 44; S fur- 4 44 80 44 95 56 80 56 95 | {SMALL_LEGS}; "
    "A fur 6 10 44 10 20 -60 90; E fur 46 56 30 12; E fur 80 42 13 12; P fur 69 40 69 20 79 32; "
    "P fur 81 32 91 20 91 40; E yellow 84 40 2 2; P pink 92 44 95 44 93 47",
    "dog": f"{SMALL_LEGS}; L fur 6 20 52 6 30; E fur 46 55 30 13; E fur 76 40 14 13; "
    "P fur 78 38 97 42 97 51 78 52; E dark 96 44 4 3; P fur- 66 30 75 30 72 54 62 52; "
    "E dark 80 37 2 2; L red 4 66 50 76 55 | A fur 6 74 82 14 14 -60 90; E fur 50 72 21 25; "
    "E fur 50 34 19 20; P fur- 34 20 40 18 36 48 24 46; P fur- 66 20 60 18 64 48 76 46; "
    "E fur+ 50 44 10 9; E dark 50 40 5 4; D dark 3 43 30 57 30; S fur- 4 44 82 44 96 56 82 56 96",
    "horse": f"L dark 6 17 44 8 56 7 74; {HORSE}",
    "sheep": "S dark 6 30 60 30 90 42 60 42 90 58 60 58 90 68 60 68 90; E white 30 46 17 17; "
    "E white 46 40 18 17; E white 60 46 17 17; E white 40 56 18 14; E white 56 57 17 14; "
    "E white 20 52 9 9; P dark 72 28 84 28 94 46 86 54 74 46; E white 74 27 7 5",
    "cow": f"L white 4 17 42 9 66; {FOUR_LEGGED}; R fur 20 36 72 56; E white 36 44 11 9; "
    "E white 58 52 9 6; E pink 36 64 7 5; P fur 72 30 88 26 97 46 90 54 80 50 72 54; "
    "E pink 92 48 6 6; S white 3 76 28 72 18 86 26 92 16; E dark 84 35 2 2",
    "elephant": "S steel- 12 28 60 28 92 60 60 60 92 40 60 40 90 52 60 52 90; "
    "E steel- 42 48 33 24; E steel- 72 40 17 18; A steel- 8 78 62 14 28 -60 80; "
    "E steel 62 42 11 17; L white 4 80 52 90 58; E dark 77 36 2 2; L steel- 3 10 44 6 66",
    "bear": "S brown- 15 26 56 25 86 64 56 66 86; S brown 15 36 56 35 86 54 56 54 86; "
    "E brown 45 50 36 22; E brown 78 42 16 15; D brown 5 70 28 84 28; E brown+ 90 47 8 7; "
    "E dark 95 45 3 3; E dark 82 39 2 2",
    "zebra": f"{HORSE.replace('fur', 'white')}; "
    "S dark 4 24 36 22 58 33 33 32 62 42 32 42 62 51 32 52 62 60 34 62 60; "
    "S dark 3 72 26 80 38 76 18 84 28; E dark 95 32 3 3; "
    "S dark 3 20 74 25 74 69 74 75 74 26 80 31 80 62 80 67 80 16 44 8 66",
    "giraffe": "S yellow- 4 36 66 35 98 56 66 57 98; S yellow 4 30 66 29 98 62 66 63 98; "
    "E yellow 45 62 21 10; P yellow 54 62 68 12 75 12 66 64; "
    "P yellow 66 12 70 4 80 6 88 15 84 18 72 17; L brown 3 70 6 68 0; "
    "D brown 4 36 59 46 65 55 60; E brown 47 57 3 3; E brown 64 50 3 4; E brown 66 38 3 4; "
    "E brown 69 27 2 4",
    "backpack": "A paint- 6 50 16 12 12 180 360; S paint- 7 24 36 19 84 76 36 81 84; "
    "R paint 24 32 76 94; E paint 50 33 26 19; R cloth 32 58 68 86; L dark 3 32 66 68 66; "
    "A dark 3 50 40 18 14 190 350",
    "umbrella": "L wood 4 50 10 50 88; A wood 4 43 88 7 8 0 180; E red 50 52 47 42 180 360; "
    "E cloth 50 52 16 42 180 360; L dark 3 50 12 50 4",
    "handbag": "A paint- 6 50 46 22 32 180 360; P paint 14 44 86 44 94 92 6 92; "
    "L paint- 4 13 58 87 58; R yellow 44 54 56 64",
    "tie": "P paint 38 4 62 4 58 18 42 18; P paint 42 20 58 20 68 78 50 98 32 78; "
    "S cloth 6 41 42 60 34 38 62 64 52 36 82 66 70",
    "suitcase": "L dark 6 36 30 36 12 64 12 64 30; R paint 12 28 88 92; "
    "S paint- 4 30 28 30 92 70 28 70 92; E dark 24 95 6 5; E dark 76 95 6 5; R steel 46 32 54 38",
    "frisbee": "E paint- 50 53 47 40; E paint 50 49 47 38; E paint+ 50 49 34 27; "
    "E paint 50 49 30 23",
    "skis": "L pink 5 6 78 86 28 96 16; L pink 5 14 90 94 40 104 28; "
    "S dark 7 44 55 54 48 54 66 64 59",
    "snowboard": "L paint 19 18 66 82 34; E paint 18 66 11 10; E paint 82 34 11 10; "
    "L cloth 5 30 60 70 40; S dark 5 30 50 38 68 62 34 70 52",
    "sports ball": f"E white {BALL}; P dark 50 34 65 45 59 62 41 62 35 45; "
    f"S dark 3 50 34 50 5 65 45 92 36 59 62 76 84 41 62 24 84 35 45 8 36 | E orange {BALL}; "
    "S dark 3 50 4 50 96 4 50 96 50; A dark 3 4 50 26 34 -70 70; A dark 3 96 50 26 34 110 250 "
    f"| E yellow {BALL}; A white 6 4 50 28 34 -70 70; A white 6 96 50 28 34 110 250",
    "kite": "L dark 2 50 78 56 88 46 94 54 100; P paint 50 2 82 36 50 80 18 36; "
    "P cloth 50 2 82 36 50 36; P cloth 50 36 50 80 18 36; E cloth 57 88 5 3; E cloth 46 94 5 3",
    "baseball bat": "P wood 8 90 12 95 58 58 94 18 92 8 82 7 46 46; E dark 9 93 6 6; "
    "L dark 7 14 88 26 76",
    "baseball glove": "S brown 15 26 58 16 30 40 50 36 14 56 50 58 13 70 54 78 24; "
    "L brown 13 74 72 92 54; E brown 50 66 32 28; E brown- 52 60 16 14; R brown- 34 86 66 95",
    "skateboard": "D dark 8 28 60 72 60; D steel 3 28 60 72 60; "
    "S paint 8 14 47 86 47 4 40 14 47 96 40 86 47; L cloth 3 18 44 82 44",
    "surfboard": "P dark 56 90 72 97 50 84; "
    "P paint 50 2 60 14 66 34 67 56 62 80 54 97 46 97 38 80 33 56 34 34 40 14; "
    "P cloth 50 2 60 14 64 28 36 28 40 14; L paint- 3 50 4 50 96; L cloth 4 35 70 65 70",
    "tennis racket": "L dark 8 42 60 18 96; L paint 6 44 58 36 68; "
    "S white 2 48 20 76 48 56 12 84 38 42 32 66 56 44 44 72 10 52 56 82 20 64 60 86 34; "
    "A paint 6 63 34 24 28 0 360",
    "bottle": "P paint 31 98 31 46 42 30 42 6 58 6 58 30 69 46 69 98; R cloth 31 56 69 80; "
    "R dark 40 2 60 10; L paint+ 4 38 50 38 94",
    "wine glass": "P glass 28 4 72 4 68 36 53 50 53 90 72 96 28 96 47 90 47 50 32 36; "
    "P red 31 20 69 20 66 35 53 48 47 48 34 35",
    "cup": "A paint 8 68 50 17 18 -90 90; P paint 20 20 72 20 66 92 26 92; E paint- 46 20 26 6; "
    "L cloth 6 25 56 67 56",
    "fork": "L steel 5 37 4 37 30 63 30 63 4; L steel 5 50 4 50 30; R steel 39 26 61 38; "
    "R steel 46 36 54 98",
    "knife": "P steel 44 58 44 4 52 8 57 24 57 58; R dark 44 56 57 98",
    "spoon": "E steel 50 19 13 17; E steel- 50 18 8 11; R steel 46 34 54 98",
    "bowl": "R paint- 36 84 64 92; E paint 50 42 47 46 0 180; E paint- 50 42 47 10; "
    "E cloth 50 43 36 6",
    "banana": "P yellow 14 16 22 14 26 40 44 62 70 68 92 60 96 66 76 86 46 86 22 66 12 40; "
    "P brown 13 8 20 8 22 16 14 17; E brown 94 63 4 5; L yellow- 3 20 38 38 68 66 78",
    "apple": "E red 36 56 30 36; E red 64 56 30 36; E red+ 30 44 8 10; L brown 5 50 26 54 8; "
    "E leaf 66 13 13 7 | E green 36 56 30 36; E green 64 56 30 36; E green+ 30 44 8 10; "
    "L brown 5 50 26 54 8",
    "sandwich": "P bread 6 56 50 18 94 56; P bread- 6 56 94 56 94 62 6 62; R leaf 4 62 96 68; "
    "R red 8 68 92 73; R yellow 4 73 96 77; P bread- 6 77 94 77 90 88 10 88",
    "orange": f"E orange {BALL}; E orange+ 36 34 10 8; D orange- 3 56 70 68 56; E leaf 50 8 9 5",
    "broccoli": "P leaf+ 38 50 62 50 58 96 42 96; S leaf+ 9 48 70 28 50 52 70 72 50; "
    "E leaf 26 42 19 17; E leaf 74 42 19 17; E leaf 50 28 24 20; E leaf 50 48 18 13; "
    "E leaf- 38 38 5 4; E leaf- 60 34 5 4; E leaf- 50 22 5 4",
    "carrot": "S leaf 5 26 26 6 18 26 26 14 6 26 26 30 4; "
    "P orange 20 34 26 22 38 22 97 92 94 96 24 42; S orange- 2 40 50 48 42 56 64 62 58",
    "hot dog": "L bread 30 22 52 78 52; E bread 16 52 10 17; E bread 84 52 10 17; "
    "L bread- 4 16 66 84 66; L brown 14 14 48 86 48; D brown 7 8 48 92 48; "
    "L yellow 4 14 50 24 44 34 52 44 44 54 52 64 44 74 52 84 46",
    "pizza": f"E bread {BALL}; E yellow 50 50 39 39; D red 8 34 34 64 32 70 60 44 70; "
    "E red 28 56 7 7; S bread- 2 50 10 50 90 14 32 86 68 14 68 86 32 "
    "| P bread 6 14 94 14 90 26 10 26; P yellow 11 24 89 24 50 98; E red 36 38 9 8; "
    "E red 62 40 9 8; E red 50 64 8 8",
    "donut": "A bread 28 50 52 32 32 0 360; A paint 22 50 49 32 31 0 360; L white 4 22 40 28 34; "
    "L cloth 4 48 18 54 20; L white 4 76 36 80 42; L cloth 4 72 66 76 60; L white 4 46 80 52 78; "
    "L cloth 4 20 58 24 64",
    "cake": "E steel+ 50 88 47 8; R paint 12 46 88 84; E paint 50 84 38 8; E white 50 46 38 11; "
    "R paint+ 12 62 88 68; S white 9 18 50 18 58 40 54 40 62 62 54 62 60 82 50 82 58; "
    "L red 5 50 44 50 22; E yellow 50 15 4 7",
    "chair": "S brown- 6 34 54 34 88 78 54 80 88; S brown 7 22 4 22 96 66 58 68 96; "
    "R paint 18 4 28 48; P paint 18 52 72 52 84 62 20 62 | S wood 6 26 60 22 96 74 60 78 96; "
    "R paint 26 4 74 48; S wood 5 28 44 28 60 72 44 72 60; P paint- 24 56 76 56 82 68 18 68",
    "couch": "R dark 10 76 18 86; R dark 82 76 90 86; R red 12 26 88 70; R red+ 12 52 88 66; "
    "R paint- 12 66 88 78; E paint 8 50 9 10; R paint 0 50 16 78; E paint 92 50 9 10; "
    "R paint 84 50 100 78; L paint- 2 50 28 50 66",
    "potted plant": "L leaf- 4 50 66 50 30; P leaf 50 62 18 48 6 22 34 30; "
    "P leaf 50 62 82 48 94 22 66 30; P leaf+ 50 60 36 28 50 2 64 28; "
    "P leaf- 48 66 22 62 10 54 34 50; P leaf- 52 66 78 62 90 54 66 50; "
    "P brown 30 66 70 66 63 98 37 98; R brown+ 27 64 73 72",
    "bed": "R wood 2 16 9 88; R wood 92 48 98 88; R white 8 56 93 70; R wood- 8 70 93 78; "
    "P paint 36 48 93 50 93 72 36 72; E white 23 49 13 8; P paint+ 36 48 46 48 46 72 36 72",
    "dining table": "S wood- 6 22 50 22 80 78 50 78 80; S wood 7 7 58 7 96 93 58 93 96; "
    "P wood+ 18 30 82 30 100 54 0 54; R wood- 0 54 100 61",
    "toilet": "R white 20 4 46 50; L steel 3 18 14 48 14; E dark 40 9 3 2; "
    "P white 22 48 88 52 70 76 66 96 32 96 34 76; E steel 58 52 32 9; E white 58 50 32 8; "
    "E steel- 60 50 23 5; L steel 3 34 76 68 76",
    "tv": f"{SCREEN}; P screen+ 6 70 6 44 50 16 72 16; R dark 45 74 55 84; R dark 30 82 70 88",
    "laptop": "R dark 14 10 86 62; R screen 19 15 81 57; P screen+ 19 57 19 40 44 15 58 15; "
    "P steel 14 62 86 62 100 84 0 84; P dark 20 65 80 65 86 75 14 75; R steel- 0 84 100 88; "
    "P steel- 40 77 60 77 62 83 38 83",
    "mouse": "A dark 3 50 8 10 14 180 270; E steel- 50 56 27 40; E steel 50 54 23 36; "
    "L dark 3 50 20 50 48; L dark 2 28 48 72 48; R dark 46 28 54 40",
    "remote": f"{SLAB}; E red 50 11 6 5; E steel 50 30 13 10; E dark 50 30 6 5; "
    "D steel 4 39 50 50 50 61 50 39 64 50 64 61 64 39 78 50 78 61 78",
    "keyboard": "R dark 2 32 98 70; S steel 7 8 40 92 40 8 50 92 50 8 61 92 61; "
    "S dark 2 18 34 18 66 30 34 30 56 42 34 42 56 54 34 54 56 66 34 66 56 80 34 80 66",
    "cell phone": f"{SLAB}; R screen 34 11 66 84; P screen+ 34 60 34 30 52 11 66 11; "
    "E steel 50 91 4 4; L steel 2 44 6 56 6",
    "microwave": "R steel 2 22 98 80; R dark 7 29 68 73; R screen 13 36 62 66; "
    "R dark 74 29 93 39; D dark 3 78 49 88 49 78 59 88 59; L white 4 71 30 71 72; "
    "R dark 10 80 18 84; R dark 82 80 90 84",
    "oven": "R steel 8 4 92 96; R dark 8 4 92 9; D dark 6 22 19 41 19 60 19 79 19; "
    "L white 4 20 34 80 34; R dark 18 42 82 80; P screen 22 76 22 60 38 46 50 46; "
    "R steel- 8 88 92 96",
    "toaster": "R bread 24 12 44 44; R bread 54 12 74 44; R steel 12 40 88 84; "
    "E steel 16 60 10 22; E steel 84 60 10 22; L dark 4 20 41 78 41; R dark 84 52 98 58; "
    "E dark 66 70 6 6; R dark 16 84 30 90; R dark 70 84 84 90",
    "sink": "A steel- 6 50 26 14 18 180 360; L steel- 6 36 26 36 48; "
    "P white 4 46 96 46 80 84 20 84; E white 50 46 47 9; E steel 50 47 38 6; "
    "L steel- 5 64 22 64 34; R white 42 82 58 100; E dark 50 48 4 2",
    "refrigerator": "R steel 22 2 78 96; R steel- 22 34 78 37; S dark 4 30 14 30 30 30 42 30 66; "
    "R dark 26 96 34 100; R dark 66 96 74 100; R white 50 10 60 18",
    "book": "P paint 4 26 50 34 96 26 96 80 50 88 4 80; P white 50 30 90 20 90 72 50 82; "
    "P white 50 30 10 20 10 72 50 82; "
    "S steel 2 18 34 42 40 18 46 42 52 18 58 42 64 58 40 82 34 58 52 82 46 58 64 82 58; "
    "L steel- 2 50 30 50 84 | R paint 32 3 68 97; S cloth 4 32 14 68 14 32 86 68 86; "
    "L white 8 50 28 50 66",
    "clock": f"E paint {BALL}; E white 50 50 38 38; S dark 5 50 50 50 24 50 50 68 60; "
    "S dark 3 50 14 50 18 50 82 50 86 14 50 18 50 82 50 86 50",
    "vase": "P paint 37 4 63 4 57 22 76 50 66 97 34 97 24 50 43 22; "
    "S cloth 5 27 50 73 50 30 62 70 62; E paint- 50 5 13 3",
    "scissors": "L steel 7 30 4 57 66; L steel- 7 70 4 43 66; A paint 7 33 80 12 14 0 360; "
    "A paint 7 67 80 12 14 0 360; E dark 50 50 3 3",
    "teddy bear": "D brown 10 30 14 70 14; E brown 22 54 10 14; E brown 78 54 10 14; "
    "E brown 32 88 14 11; E brown 68 88 14 11; E brown 50 66 25 25; E brown 50 28 25 22; "
    "E bread 50 36 11 9; D dark 3 41 24 59 24; E dark 50 33 4 3; E bread 50 68 14 15; "
    "E bread 30 90 6 5; E bread 70 90 6 5",
    "hair drier": "P paint- 34 50 54 50 48 96 34 96; E paint 38 34 28 24; "
    "P paint 40 12 74 22 74 46 40 57; P dark 74 18 96 14 96 54 74 50; E dark 30 34 10 10; "
    "R dark 38 62 48 70",
    "toothbrush": "L paint 6 50 97 50 6; L white 11 58 8 58 24; R cloth 46 54 54 92",
}

# objects of no category, which hide what is behind them and resemble real categories
CLUTTER = {
    "board": "R paint 0 0 100 60",
    "slab": "R dark 30 0 70 100",
    "disc": "E paint 50 50 40 40; E paint+ 40 40 14 12",
    "stick": "L steel 7 50 0 50 100",
    "rod": "L paint 8 50 0 50 100; R dark 45 60 55 98",
    "jar": "P paint 26 20 74 20 68 90 32 90",
    "blob": "P cloth 10 40 30 12 62 6 92 34 80 74 46 94 20 78",
}
