// Attention of 32 rows of one head: a workgroup of 8 x 8 walks over keys and values 32 at a time, with a
// chunk of their channels in its memory. What is mixed is kept relative to the highest score so far, so
// that no score is stored (Milakov and Gimelshein 2018, arXiv 1805.02867). An invocation holds 4 x 4
// scores, and of the result 4 rows by 4 channels in each of $CHUNKS chunks of $DEPTH channels, at most 32;
// chunks are written out, since what is indexed by a loop's variable may not stay in registers. Per tile
// 4 * 32 * 32 operations a channel, 8 per number of workgroup memory read. A step is four channels.
//
// The file that imports this has a `Head` with the number of `rows`, of `keys` and of `steps` that exist,
// and says where things lie and what they count for: `query`, `key` and `value` at a step; `marks` of four
// rows and `scored`, which makes scores of their products with a key, NEVER where a row does not see it;
// `factors` of four rows' results by the sums of their weights; `put`, which stores a step, and `put_end`.
const ROWS = 32u;
// Below every score.
const NEVER = -3.4e38;

// Queries, [channel, row]; then weights, [key, row]; four rows in a vector.
var<workgroup> left: array<vec4<f32>, 256>;
// Keys, [channel, key]; then the highest scores of four keys, [keys, row]; then values, [key, channel].
var<workgroup> right: array<vec4<f32>, 256>;

fn query_or_none(head: Head, row: u32, step: u32) -> vec4<f32> {
    if row >= head.rows || step >= head.steps {
        return vec4<f32>();
    }
    return query(head, row, step);
}

fn key_or_none(head: Head, at: u32, step: u32) -> vec4<f32> {
    if at >= head.keys || step >= head.steps {
        return vec4<f32>();
    }
    return key(head, at, step);
}

// Lays queries and keys of a chunk out, four by four channels in each invocation, turned over on their way.
fn lay_chunk(head: Head, chunk: u32, first_row: u32, first_key: u32, lane: u32) {
    let quad = lane / 8u;
    let step = chunk * 8u + quad;
    let row = first_row + lane % 8u * 4u;
    let at = first_key + lane % 8u * 4u;
    let rows_turned = transpose(mat4x4<f32>(
        query_or_none(head, row, step), query_or_none(head, row + 1u, step),
        query_or_none(head, row + 2u, step), query_or_none(head, row + 3u, step),
    ));
    let keys_turned = transpose(mat4x4<f32>(
        key_or_none(head, at, step), key_or_none(head, at + 1u, step),
        key_or_none(head, at + 2u, step), key_or_none(head, at + 3u, step),
    ));
    let place = quad * 32u + lane % 8u;
    left[place] = rows_turned[0];
    left[place + 8u] = rows_turned[1];
    left[place + 16u] = rows_turned[2];
    left[place + 24u] = rows_turned[3];
    right[place] = keys_turned[0];
    right[place + 8u] = keys_turned[1];
    right[place + 16u] = keys_turned[2];
    right[place + 24u] = keys_turned[3];
}

// Adds 32 weighted values from `first_key` on to a chunk of four rows; all must call.
fn add_values(
    sums: ptr<function, array<vec4<f32>, 4>>,
    head: Head,
    chunk: u32,
    shrink: vec4<f32>,
    first_key: u32,
    local: vec3<u32>,
) {
    let step = chunk * 8u + local.x;
    for (var at = local.y; at < 32u; at += 8u) {
        var four = vec4<f32>();
        if first_key + at < head.keys && step < head.steps {
            four = value(head, first_key + at, step);
        }
        right[at * 8u + local.x] = four;
    }
    workgroupBarrier();
    (*sums)[0] *= shrink.x;
    (*sums)[1] *= shrink.y;
    (*sums)[2] *= shrink.z;
    (*sums)[3] *= shrink.w;
    for (var at = 0u; at < 32u; at++) {
        let weights = left[at * 8u + local.y];
        let columns = right[at * 8u + local.x];
        (*sums)[0] += weights.x * columns;
        (*sums)[1] += weights.y * columns;
        (*sums)[2] += weights.z * columns;
        (*sums)[3] += weights.w * columns;
    }
    workgroupBarrier();
}

// Stores four rows of a chunk, as far as they exist.
fn put_chunk(sums: array<vec4<f32>, 4>, head: Head, chunk: u32, row: u32, x: u32, factors: vec4<f32>) {
    let step = chunk * 8u + x;
    if step >= head.steps {
        return;
    }
    if row < head.rows {
        put(head, row, step, sums[0] * factors.x);
    }
    if row + 1u < head.rows {
        put(head, row + 1u, step, sums[1] * factors.y);
    }
    if row + 2u < head.rows {
        put(head, row + 2u, step, sums[2] * factors.z);
    }
    if row + 3u < head.rows {
        put(head, row + 3u, step, sums[3] * factors.w);
    }
}

// The weights of four rows for one key.
fn weighed(scores: vec4<f32>, top: vec4<f32>) -> vec4<f32> {
    return select(exp(scores - top), vec4<f32>(), scores == vec4<f32>(NEVER));
}

// Rows from `first_row` on over keys `first` .. `end`; called by all of a workgroup.
fn attend(head: Head, first_row: u32, first: u32, end: u32, local: vec3<u32>, lane: u32) {
    let row = first_row + local.y * 4u;
    let own = marks(head, row);
    var sums0: array<vec4<f32>, 4>;
    var sums1: array<vec4<f32>, 4>;
    var sums2: array<vec4<f32>, 4>;
    var sums3: array<vec4<f32>, 4>;
    var top = vec4<f32>(NEVER);
    // Of the weights of every eighth group of four keys.
    var total = vec4<f32>();

    for (var first_key = first; first_key < end; first_key += 32u) {
        // By key, of four rows. Written out: SwiftShader clears a variable without a value once, not
        // every time round.
        var a = vec4<f32>();
        var b = vec4<f32>();
        var c = vec4<f32>();
        var d = vec4<f32>();
        for (var chunk = 0u; chunk < $CHUNKSu; chunk++) {
            if lane < $DEPTHu * 2u {
                lay_chunk(head, chunk, first_row, first_key, lane);
            }
            workgroupBarrier();
            for (var channel = 0u; channel < $DEPTHu; channel++) {
                let rows = left[channel * 8u + local.y];
                let columns = right[channel * 8u + local.x];
                a += columns.x * rows;
                b += columns.y * rows;
                c += columns.z * rows;
                d += columns.w * rows;
            }
            workgroupBarrier();
        }
        let at = first_key + local.x * 4u;
        a = scored(head, own, at, a);
        b = scored(head, own, at + 1u, b);
        c = scored(head, own, at + 2u, c);
        d = scored(head, own, at + 3u, d);
        right[local.x * 8u + local.y] = max(max(a, b), max(c, d));
        workgroupBarrier();
        var next = top;
        for (var x = 0u; x < 8u; x++) {
            next = max(next, right[x * 8u + local.y]);
        }
        let shrink = exp(top - next);
        top = next;
        a = weighed(a, top);
        b = weighed(b, top);
        c = weighed(c, top);
        d = weighed(d, top);
        total = total * shrink + (a + b + c + d);
        let place = local.x * 32u + local.y;
        left[place] = a;
        left[place + 8u] = b;
        left[place + 16u] = c;
        left[place + 24u] = d;
        workgroupBarrier();
        add_values(&sums0, head, 0u, shrink, first_key, local);
        if $CHUNKSu > 1u {
            add_values(&sums1, head, 1u, shrink, first_key, local);
        }
        if $CHUNKSu > 2u {
            add_values(&sums2, head, 2u, shrink, first_key, local);
        }
        if $CHUNKSu > 3u {
            add_values(&sums3, head, 3u, shrink, first_key, local);
        }
    }
    right[local.x * 8u + local.y] = total;
    workgroupBarrier();
    total = vec4<f32>();
    for (var x = 0u; x < 8u; x++) {
        total += right[x * 8u + local.y];
    }
    let by = factors(total);
    put_chunk(sums0, head, 0u, row, local.x, by);
    if $CHUNKSu > 1u {
        put_chunk(sums1, head, 1u, row, local.x, by);
    }
    if $CHUNKSu > 2u {
        put_chunk(sums2, head, 2u, row, local.x, by);
    }
    if $CHUNKSu > 3u {
        put_chunk(sums3, head, 3u, row, local.x, by);
    }
    if local.x == 0u {
        put_end(head, row, top, total);
    }
}
