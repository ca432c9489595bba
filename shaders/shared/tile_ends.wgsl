// What a product of many rows reads of x, and how its outputs are written.

// Four inputs of row `m` from `k` on; 0 past the last row and past the end of a row.
fn inputs_at(m: u32, k: u32) -> vec4<f32> {
    if m >= sizes[0].x || k >= sizes[0].z {
        return vec4<f32>();
    }
    return x[(m * sizes[0].z + k) / 4u];
}

// Writes output `m`, `n` of the rows and columns at hand, with what is added to it.
fn put_one(m: u32, n: u32, product: f32) {
    if n >= sizes[0].y {
        return;
    }
    let at = m * sizes[1].y + sizes[1].x + n;
    var value = product;
    if sizes[1].z == 1u {
        value += added[sizes[1].x + n];
    } else if sizes[1].z == 2u {
        value += added[at];
    }
    y[at] = value;
}

// Writes four outputs of row `m` from `n` on.
fn put(m: u32, n: u32, products: vec4<f32>) {
    if m >= sizes[0].x {
        return;
    }
    put_one(m, n, products.x);
    put_one(m, n + 1u, products.y);
    put_one(m, n + 2u, products.z);
    put_one(m, n + 3u, products.w);
}
