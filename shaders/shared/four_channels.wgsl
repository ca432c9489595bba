alias Channels = vec4<f32>;
