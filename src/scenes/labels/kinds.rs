//! The 80 kinds of COCO with their words.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name of the class, singular.
    pub name: &'static str,
    /// The plural.
    pub plural: &'static str,
    /// Other words, singular and plural. The answer uses `name` and `plural`.
    pub synonyms: &'static [(&'static str, &'static str)],
}

const fn kind(
    name: &'static str,
    plural: &'static str,
    synonyms: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind {
        name,
        plural,
        synonyms,
    }
}

/// The kinds, in the order of the detector's classes.
pub const KINDS: [Kind; 80] = [
    kind(
        "person",
        "people",
        &[
            ("man", "men"),
            ("woman", "women"),
            ("human", "humans"),
            ("guy", "guys"),
            ("kid", "kids"),
            ("child", "children"),
            ("boy", "boys"),
            ("girl", "girls"),
            ("person", "persons"),
            ("somebody", "folks"),
        ],
    ),
    kind(
        "bicycle",
        "bicycles",
        &[("bike", "bikes"), ("cycle", "cycles")],
    ),
    kind(
        "car",
        "cars",
        &[("automobile", "automobiles"), ("auto", "autos")],
    ),
    kind(
        "motorcycle",
        "motorcycles",
        &[("motorbike", "motorbikes"), ("scooter", "scooters")],
    ),
    kind(
        "airplane",
        "airplanes",
        &[
            ("plane", "planes"),
            ("aeroplane", "aeroplanes"),
            ("aircraft", "aircraft"),
            ("jet", "jets"),
        ],
    ),
    kind("bus", "buses", &[("coach", "coaches")]),
    kind("train", "trains", &[("locomotive", "locomotives")]),
    kind("truck", "trucks", &[("lorry", "lorries")]),
    kind("boat", "boats", &[("ship", "ships")]),
    kind(
        "traffic light",
        "traffic lights",
        &[
            ("stoplight", "stoplights"),
            ("traffic signal", "traffic signals"),
        ],
    ),
    kind("fire hydrant", "fire hydrants", &[("hydrant", "hydrants")]),
    kind("stop sign", "stop signs", &[]),
    kind("parking meter", "parking meters", &[("meter", "meters")]),
    kind("bench", "benches", &[]),
    kind(
        "bird",
        "birds",
        &[
            ("pigeon", "pigeons"),
            ("seagull", "seagulls"),
            ("duck", "ducks"),
        ],
    ),
    kind(
        "cat",
        "cats",
        &[("kitten", "kittens"), ("kitty", "kitties")],
    ),
    kind("dog", "dogs", &[("puppy", "puppies"), ("doggy", "doggies")]),
    kind("horse", "horses", &[("pony", "ponies")]),
    kind("sheep", "sheep", &[("lamb", "lambs")]),
    kind("cow", "cows", &[("bull", "bulls"), ("cattle", "cattle")]),
    kind("elephant", "elephants", &[]),
    kind("bear", "bears", &[]),
    kind("zebra", "zebras", &[]),
    kind("giraffe", "giraffes", &[]),
    kind(
        "backpack",
        "backpacks",
        &[("rucksack", "rucksacks"), ("knapsack", "knapsacks")],
    ),
    kind("umbrella", "umbrellas", &[("parasol", "parasols")]),
    kind(
        "handbag",
        "handbags",
        &[("purse", "purses"), ("bag", "bags")],
    ),
    kind("tie", "ties", &[("necktie", "neckties")]),
    kind(
        "suitcase",
        "suitcases",
        &[("trunk", "trunks"), ("luggage", "luggage")],
    ),
    kind("frisbee", "frisbees", &[("flying disc", "flying discs")]),
    kind("skis", "skis", &[("ski", "skis")]),
    kind("snowboard", "snowboards", &[]),
    kind(
        "sports ball",
        "sports balls",
        &[
            ("ball", "balls"),
            ("football", "footballs"),
            ("tennis ball", "tennis balls"),
        ],
    ),
    kind("kite", "kites", &[]),
    kind("baseball bat", "baseball bats", &[("bat", "bats")]),
    kind(
        "baseball glove",
        "baseball gloves",
        &[("glove", "gloves"), ("mitt", "mitts")],
    ),
    kind("skateboard", "skateboards", &[]),
    kind("surfboard", "surfboards", &[]),
    kind(
        "tennis racket",
        "tennis rackets",
        &[("racket", "rackets"), ("racquet", "racquets")],
    ),
    kind("bottle", "bottles", &[]),
    kind(
        "wine glass",
        "wine glasses",
        &[("glass", "glasses"), ("goblet", "goblets")],
    ),
    kind(
        "cup",
        "cups",
        &[("mug", "mugs"), ("coffee cup", "coffee cups")],
    ),
    kind("fork", "forks", &[]),
    kind("knife", "knives", &[]),
    kind("spoon", "spoons", &[]),
    kind("bowl", "bowls", &[("dish", "dishes")]),
    kind("banana", "bananas", &[]),
    kind("apple", "apples", &[]),
    kind("sandwich", "sandwiches", &[("burger", "burgers")]),
    kind("orange", "oranges", &[]),
    kind("broccoli", "broccoli", &[]),
    kind("carrot", "carrots", &[]),
    kind("hot dog", "hot dogs", &[("hotdog", "hotdogs")]),
    kind("pizza", "pizzas", &[]),
    kind("donut", "donuts", &[("doughnut", "doughnuts")]),
    kind("cake", "cakes", &[]),
    kind(
        "chair",
        "chairs",
        &[
            ("seat", "seats"),
            ("stool", "stools"),
            ("armchair", "armchairs"),
        ],
    ),
    kind(
        "couch",
        "couches",
        &[("sofa", "sofas"), ("settee", "settees")],
    ),
    kind(
        "potted plant",
        "potted plants",
        &[("plant", "plants"), ("houseplant", "houseplants")],
    ),
    kind("bed", "beds", &[]),
    kind(
        "dining table",
        "dining tables",
        &[("table", "tables"), ("desk", "desks")],
    ),
    kind("toilet", "toilets", &[("loo", "loos")]),
    kind(
        "tv",
        "tvs",
        &[
            ("television", "televisions"),
            ("TV", "TVs"),
            ("monitor", "monitors"),
            ("screen", "screens"),
        ],
    ),
    kind(
        "laptop",
        "laptops",
        &[
            ("notebook computer", "notebook computers"),
            ("computer", "computers"),
        ],
    ),
    kind("mouse", "mice", &[("computer mouse", "computer mice")]),
    kind(
        "remote",
        "remotes",
        &[("remote control", "remote controls")],
    ),
    kind("keyboard", "keyboards", &[]),
    kind(
        "cell phone",
        "cell phones",
        &[
            ("phone", "phones"),
            ("mobile phone", "mobile phones"),
            ("smartphone", "smartphones"),
        ],
    ),
    kind(
        "microwave",
        "microwaves",
        &[("microwave oven", "microwave ovens")],
    ),
    kind(
        "oven",
        "ovens",
        &[("stove", "stoves"), ("cooker", "cookers")],
    ),
    kind("toaster", "toasters", &[]),
    kind(
        "sink",
        "sinks",
        &[("washbasin", "washbasins"), ("basin", "basins")],
    ),
    kind(
        "refrigerator",
        "refrigerators",
        &[("fridge", "fridges"), ("freezer", "freezers")],
    ),
    kind("book", "books", &[]),
    kind("clock", "clocks", &[("watch", "watches")]),
    kind("vase", "vases", &[]),
    kind("scissors", "scissors", &[]),
    kind(
        "teddy bear",
        "teddy bears",
        &[("teddy", "teddies"), ("stuffed animal", "stuffed animals")],
    ),
    kind(
        "hair drier",
        "hair driers",
        &[("hair dryer", "hair dryers"), ("hairdryer", "hairdryers")],
    ),
    kind("toothbrush", "toothbrushes", &[]),
];

/// A word for several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The singular.
    pub name: &'static str,
    /// The plural, which answers use.
    pub plural: &'static str,
    /// The classes, as a range of [`KINDS`].
    pub first: usize,
    /// The last class, inclusive.
    pub last: usize,
}

const fn group(name: &'static str, plural: &'static str, first: usize, last: usize) -> Group {
    Group {
        name,
        plural,
        first,
        last,
    }
}

/// The groups; all but the last are supercategories of COCO.
pub const GROUPS: [Group; 6] = [
    group("animal", "animals", 14, 23),
    group("vehicle", "vehicles", 1, 8),
    group("piece of food", "food", 46, 55),
    group("piece of furniture", "furniture", 56, 61),
    group("device", "devices", 62, 67),
    group("thing", "things", 0, 79),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_word_means_one_kind() {
        let mut seen = HashSet::new();
        for kind in &KINDS {
            let words: HashSet<&str> = [kind.name, kind.plural]
                .into_iter()
                .chain(kind.synonyms.iter().flat_map(|&(one, many)| [one, many]))
                .collect();
            for word in words {
                assert!(seen.insert(word), "{word}");
            }
        }
        for group in &GROUPS {
            assert!(seen.insert(group.name) && seen.insert(group.plural));
            assert!(group.first <= group.last && group.last < KINDS.len());
        }
        assert_eq!(KINDS[GROUPS[0].first].name, "bird");
        assert_eq!(KINDS[GROUPS[0].last].name, "giraffe");
        assert_eq!(KINDS[GROUPS[2].last].name, "cake");
        assert_eq!(KINDS[GROUPS[3].last].name, "toilet");
        assert_eq!(KINDS[GROUPS[4].last].name, "cell phone");
    }
}
