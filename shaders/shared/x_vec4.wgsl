// The inputs that a load meets: four.
struct Inputs {
    a: Slice,
}
const LOAD_VECTORS = 1u;

fn inputs_at(place: u32) -> Inputs {
    return Inputs(laid[place]);
}
