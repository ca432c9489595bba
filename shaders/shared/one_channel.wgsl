// Channels per thread: one.
alias Channels = f32;
