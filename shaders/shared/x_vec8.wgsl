// The inputs that a load meets, 32 of them: their vectors lie one plane behind another.
struct Inputs {
    a: Slice,
    b: Slice,
    c: Slice,
    d: Slice,
    total: f32,
}
const LOAD_VECTORS = 8u;

fn inputs_at(place: u32) -> Inputs {
    let a = Slice(laid[place], laid[place + PLANE]);
    let b = Slice(laid[place + 2u * PLANE], laid[place + 3u * PLANE]);
    let c = Slice(laid[place + 4u * PLANE], laid[place + 5u * PLANE]);
    let d = Slice(laid[place + 6u * PLANE], laid[place + 7u * PLANE]);
    return Inputs(a, b, c, d, dot(a.a + a.b + b.a + b.b + c.a + c.b + d.a + d.b, vec4<f32>(1.0)));
}
