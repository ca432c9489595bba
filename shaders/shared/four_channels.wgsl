// four_channels: four channels per thread.
alias Channels = vec4<f32>;
