// PCG hash, RXS-M-XS output function (O'Neill 2014; Jarzynski and Olano 2020); `pcg` of
// src/generate/sampling.rs.
fn pcg(input: u32) -> u32 {
    let state = input * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}
