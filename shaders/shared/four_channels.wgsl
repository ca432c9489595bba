// Channels per thread: four.
alias Channels = vec4<f32>;
