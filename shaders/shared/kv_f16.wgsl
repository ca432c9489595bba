// Neighbouring channels in a cache of half precision, two as they are written and four as they
// are read.
alias Two = u32;
alias Four = vec2<u32>;

fn stored(values: vec2<f32>) -> Two {
    return pack2x16float(clamp(values, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}

fn stored_four(values: vec4<f32>) -> Four {
    return vec2<u32>(stored(values.xy), stored(values.zw));
}

fn loaded(four: Four) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}
