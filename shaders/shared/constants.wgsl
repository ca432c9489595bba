// The lowest and the highest finite f32.
const LOWEST = -3.4028234e38;
const HIGHEST = 3.4028234e38;
