// Attention of one query per invocation over keys and values that the workgroup reads $TILE at a
// time; what is mixed is kept relative to the largest score so far, so that no score is stored
// (Milakov and Gimelshein 2018, arXiv 1805.02867). A channel step is four channels.
//
// The file that imports this says where things lie: `query`, `key` and `value` of a token and
// channel step, `mark`, whatever of a token `relation` needs to make what is added to the score of
// two, and `put`, which stores the result.

struct Head {
    picture: u32, // or window
    index: u32,   // of the head
    tokens: u32,
    steps: u32,   // channel steps that exist, at most STEPS
}

const STEPS = $WIDTHu / 4u;
// Below every score; its exponential is zero beside any other.
const NEVER = -1e30;

var<workgroup> keys: array<vec4<f32>, $TILEu * STEPS>;
var<workgroup> values: array<vec4<f32>, $TILEu * STEPS>;
var<workgroup> marks: array<u32, $TILE>;
var<private> asked: array<vec4<f32>, STEPS>;
var<private> mixed: array<vec4<f32>, STEPS>;

// The score of key `k` of the tile's `count`.
fn score(head: Head, own: u32, k: u32, count: u32) -> f32 {
    if k >= count {
        return NEVER;
    }
    var products = vec4<f32>(0.0);
    for (var i = 0u; i < STEPS; i++) {
        products += asked[i] * keys[k * STEPS + i];
    }
    return dot(products, vec4<f32>(1.0)) + relation(head, own, marks[k]);
}

// Called by all of a workgroup of $GROUP for one head and their own tokens, some beyond the last.
fn attend(head: Head, token: u32, lane: u32) {
    let inside = token < head.tokens;
    let scale = inverseSqrt(f32(4u * head.steps));
    var own = 0u;
    if inside {
        own = mark(head, token);
    }
    for (var i = 0u; i < STEPS; i++) {
        asked[i] = vec4<f32>(0.0);
        mixed[i] = vec4<f32>(0.0);
        if inside && i < head.steps {
            asked[i] = scale * query(head, token, i);
        }
    }
    var largest = NEVER;
    var total = 0.0;
    for (var start = 0u; start < head.tokens; start += $TILEu) {
        for (var at = lane; at < $TILEu * STEPS; at += $GROUPu) {
            let other = start + at / STEPS;
            let step = at % STEPS;
            let exists = other < head.tokens && step < head.steps;
            keys[at] = vec4<f32>(0.0);
            values[at] = vec4<f32>(0.0);
            if exists {
                keys[at] = key(head, other, step);
                values[at] = value(head, other, step);
            }
        }
        for (var at = lane; at < min($TILEu, head.tokens - start); at += $GROUPu) {
            marks[at] = mark(head, start + at);
        }
        workgroupBarrier();
        let count = min($TILEu, head.tokens - start);
        for (var k = 0u; k < count; k += 4u) {
            let scores = vec4<f32>(
                score(head, own, k, count),
                score(head, own, k + 1u, count),
                score(head, own, k + 2u, count),
                score(head, own, k + 3u, count),
            );
            let pair = max(scores.xy, scores.zw);
            let next = max(largest, max(pair.x, pair.y));
            let shrink = exp(largest - next);
            let shares = exp(scores - next);
            total = total * shrink + dot(shares, vec4<f32>(1.0));
            for (var i = 0u; i < STEPS; i++) {
                mixed[i] = mixed[i] * shrink
                    + shares.x * values[k * STEPS + i]
                    + shares.y * values[(k + 1u) * STEPS + i]
                    + shares.z * values[(k + 2u) * STEPS + i]
                    + shares.w * values[(k + 3u) * STEPS + i];
            }
            largest = next;
        }
        workgroupBarrier();
    }
    if inside {
        for (var i = 0u; i < head.steps; i++) {
            put(head, token, i, mixed[i] / total);
        }
    }
}
