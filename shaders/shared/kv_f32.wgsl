// kv_f32: four neighboring channels of an f32 KV cache.
alias KvQuad = vec4<f32>;

fn pack_quad(values: vec4<f32>) -> KvQuad {
    return values;
}

fn unpack_quad(quad: KvQuad) -> vec4<f32> {
    return quad;
}
