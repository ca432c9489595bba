alias Channels = f32;
