// kv_f16: four neighboring channels of an f16 KV cache. Values beyond +-65504, the largest f16, are clamped
// to it. NaN stays NaN: WGSL leaves clamp and pack2x16float of NaN undefined, so its bits are set here.
alias KvQuad = vec2<u32>;

fn pack_pair(values: vec2<f32>) -> u32 {
    let packed = pack2x16float(clamp(values, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
    let is_nan = (bitcast<vec2<u32>>(values) & vec2<u32>(0x7fffffffu)) > vec2<u32>(0x7f800000u);
    let nan = select(vec2<u32>(), vec2<u32>(0x7e00u, 0x7e000000u), is_nan);
    return packed | nan.x | nan.y;
}

fn pack_quad(values: vec4<f32>) -> KvQuad {
    return vec2<u32>(pack_pair(values.xy), pack_pair(values.zw));
}

fn unpack_quad(quad: KvQuad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(quad.x), unpack2x16float(quad.y));
}
