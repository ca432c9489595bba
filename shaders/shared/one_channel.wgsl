// one_channel: one channel per thread.
alias Channels = f32;
