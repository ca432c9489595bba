// Four products of one row of `x` for each team of 32 in a workgroup of $GROUP, and the sum of the row's
// squares where it goes through a norm. A row goes by in stretches of a load for each of a team: what all
// teams need of it lies in workgroup memory, and while one stretch is used the next is on its way. All of
// a workgroup must call; all of a team get what is theirs.
//
// The file that imports this says what the products are of: `fetched`, the four loads at a place and what
// is read for their scales, and `scales_in`, the scales.
const TEAM = 32u;
// Vectors of `x` in a stretch, and how far apart the planes are that they lie in.
const STRETCH = TEAM * LOAD_VECTORS;
const PLANE = TEAM + 1u;

// Two stretches in turn.
var<workgroup> laid: array<vec4<f32>, 2u * LOAD_VECTORS * PLANE>;
var<workgroup> team_sums: array<vec4<f32>, $GROUP>;
var<workgroup> team_squares: array<f32, $GROUP>;

struct Fetched {
    a: Load,
    b: Load,
    c: Load,
    d: Load,
    words: vec4<u32>,
}

struct Sums {
    four: vec4<f32>,
    squares: f32,
}

// A vector of a row and of the gain; 0 past the row's end.
struct Brought {
    x: vec4<f32>,
    gain: vec4<f32>,
}

fn brought(m: u32, width: u32, vector: u32, normed: bool) -> Brought {
    var found = Brought(vec4<f32>(), vec4<f32>());
    if vector < width / 4u {
        found.x = x[m * (width / 4u) + vector];
        if normed {
            found.gain = gain[vector];
        }
    }
    return found;
}

// Lays vector `at` of a stretch out; its sum of squares where the row goes through a norm.
fn lay(vector: Brought, at: u32, half: u32, normed: bool) -> f32 {
    let place = half + at % LOAD_VECTORS * PLANE + at / LOAD_VECTORS;
    if !normed {
        laid[place] = vector.x;
        return 0.0;
    }
    laid[place] = vector.x * vector.gain;
    return dot(vector.x, vector.x);
}

fn add_up(lane: u32, m: u32, width: u32, first: u32, normed: bool) -> Sums {
    let rank = lane % TEAM;
    let loads = width / (4u * LOAD_VECTORS);
    var own = Sums(vec4<f32>(), 0.0);
    var half = 0u;
    var next = fetched(first, min(rank, loads - 1u));
    var near = brought(m, width, lane, normed);
    var far = brought(m, width, lane + $GROUPu, normed);
    for (var base = 0u; base < loads; base += TEAM) {
        if lane < STRETCH {
            own.squares += lay(near, lane, half, normed);
        }
        if lane + $GROUPu < STRETCH {
            own.squares += lay(far, lane + $GROUPu, half, normed);
        }
        let now = next;
        workgroupBarrier();
        if base + TEAM < loads {
            let vector = (base + TEAM) * LOAD_VECTORS + lane;
            next = fetched(first, min(base + TEAM + rank, loads - 1u));
            near = brought(m, width, vector, normed);
            if $GROUPu < STRETCH {
                far = brought(m, width, vector + $GROUPu, normed);
            }
        }
        let inputs = inputs_at(half + rank);
        let products = vec4<f32>(
            product_of(now.a, inputs),
            product_of(now.b, inputs),
            product_of(now.c, inputs),
            product_of(now.d, inputs),
        );
        own.four += products * scales_in(now.words, first, min(base + rank, loads - 1u));
        half = LOAD_VECTORS * PLANE - half;
    }
    team_sums[lane] = own.four;
    team_squares[lane] = own.squares;
    workgroupBarrier();
    for (var reach = TEAM / 2u; reach > 0u; reach /= 2u) {
        if rank < reach {
            team_sums[lane] += team_sums[lane + reach];
            team_squares[lane] += team_squares[lane + reach];
        }
        workgroupBarrier();
    }
    var squares = 0.0;
    for (var team = 0u; team < $GROUPu; team += TEAM) {
        squares += team_squares[team];
    }
    return Sums(team_sums[lane - rank], squares);
}

// What the norm makes of every product of a row whose squares add up to `squares`: it is a factor of
// the whole sum.
fn norm_factor(squares: f32, width: u32, eps: u32) -> f32 {
    return inverseSqrt(squares / f32(width) + bitcast<f32>(eps));
}
