// Neighbouring channels in a cache of single precision, two as they are written and four as they
// are read.
alias Two = vec2<f32>;
alias Four = vec4<f32>;

fn stored(values: vec2<f32>) -> Two {
    return values;
}

fn stored_four(values: vec4<f32>) -> Four {
    return values;
}

fn loaded(four: Four) -> vec4<f32> {
    return four;
}
