// attention_prefill: rows over all that the cache holds before them and themselves.
//
//   q       [M, H, W]
//   keys    [G, C, W]    query heads h/(H/G) share a key head
//   values  [G, C, W]
//   mixed   [M, H, W]    mean of the values of keys 0 ..= P + m, weighted by exp(factor * q . key);
//                        [M, H, S, W + 2] where S is above 1, what attention_join takes: of each part
//                        of the keys the sum of exp(score - top) * value, then top, then sum of exp
//   sizes                M, H, G, W and C, P, bits of the factor, S
//
// Online softmax (arXiv 2205.14135): a workgroup of 8 x 8 takes 32 rows of one head and one of S parts
// of the keys, which keep a device busy that is given few rows. It walks over them 32 at a time, with
// 32 channels of both operands in workgroup memory; no scores leave it. An invocation holds 4 x 4
// scores, and of the result 4 rows by 4 channels in each of $CHUNKS chunks of 32. Per tile
// 4 * 32 * 32 * W operations on 2 * 32 * W numbers of the cache, 8 per vector of workgroup memory read.
// W is a multiple of 4.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, read_write> mixed: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;

// Queries, [channel, row]; then weights, [key, row].
var<workgroup> left: array<vec4<f32>, 256>;
// Keys, [channel, key]; then the highest scores of four keys, [keys, row]; then values, [key, channel].
var<workgroup> right: array<vec4<f32>, 256>;

// Four channels from `channel` on of query `row`.
fn query(row: u32, head: u32, channel: u32) -> vec4<f32> {
    let width = sizes[0].w;
    if row >= sizes[0].x || channel >= width {
        return vec4<f32>();
    }
    return q[((row * sizes[0].y + head) * width + channel) / 4u];
}

// Where four channels from `channel` on of key `key` lie in the cache.
fn cached(key_head: u32, key: u32, channel: u32) -> u32 {
    return ((key_head * sizes[1].x + key) * sizes[0].w + channel) / 4u;
}

// The same of a key among the first `seen`; 0 past them and past the last channel.
fn key_of(key_head: u32, key: u32, channel: u32, seen: u32) -> vec4<f32> {
    if key >= seen || channel >= sizes[0].w {
        return vec4<f32>();
    }
    return loaded(keys[cached(key_head, key, channel)]);
}

// Adds 32 weighted values from `first_key` on to a chunk of the result; all must call.
fn add_values(
    sums: ptr<function, array<vec4<f32>, 4>>,
    chunk: u32,
    shrink: vec4<f32>,
    key_head: u32,
    first_key: u32,
    seen: u32,
    local: vec3<u32>,
) {
    let channel = chunk * 32u + local.x * 4u;
    for (var key = local.y; key < 32u; key += 8u) {
        var four = vec4<f32>();
        if first_key + key < seen && channel < sizes[0].w {
            four = loaded(values[cached(key_head, first_key + key, channel)]);
        }
        right[key * 8u + local.x] = four;
    }
    workgroupBarrier();
    (*sums)[0] *= shrink.x;
    (*sums)[1] *= shrink.y;
    (*sums)[2] *= shrink.z;
    (*sums)[3] *= shrink.w;
    for (var key = 0u; key < 32u; key++) {
        let weights = left[key * 8u + local.y];
        let columns = right[key * 8u + local.x];
        (*sums)[0] += weights.x * columns;
        (*sums)[1] += weights.y * columns;
        (*sums)[2] += weights.z * columns;
        (*sums)[3] += weights.w * columns;
    }
    workgroupBarrier();
}

// Where the result of one row begins, and its parts.
struct Place {
    head: u32,
    part: u32,
}

fn start_of(row: u32, place: Place) -> u32 {
    let parts = sizes[1].w;
    let made = sizes[0].w + select(0u, 2u, parts > 1u);
    return ((row * sizes[0].y + place.head) * parts + place.part) * made / 2u;
}

fn put(row: u32, channel: u32, place: Place, four: vec4<f32>) {
    if row < sizes[0].x && channel < sizes[0].w {
        let at = start_of(row, place) + channel / 2u;
        mixed[at] = four.xy;
        mixed[at + 1u] = four.zw;
    }
}

// Four rows of a chunk, each times its factor.
fn put_chunk(sums: array<vec4<f32>, 4>, chunk: u32, row: u32, x: u32, place: Place, factors: vec4<f32>) {
    let channel = chunk * 32u + x * 4u;
    put(row, channel, place, sums[0] * factors.x);
    put(row + 1u, channel, place, sums[1] * factors.y);
    put(row + 2u, channel, place, sums[2] * factors.z);
    put(row + 3u, channel, place, sums[3] * factors.w);
}

// The weights of four rows for one key, and 0 for a row that does not see it.
fn weighed(scores: vec4<f32>, top: vec4<f32>) -> vec4<f32> {
    return select(exp(scores - top), vec4<f32>(), scores == vec4<f32>(LOWEST));
}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = sizes[0].x;
    let past = sizes[1].y;
    let factor = bitcast<f32>(sizes[1].z);
    let tiles = (count + 31u) / 32u;
    let parts = sizes[1].w;
    let flat_group = group.y * groups.x + group.x;
    let part = flat_group % parts;
    let head = flat_group / parts / tiles;
    if head >= sizes[0].y {
        return;
    }
    let key_head = head / (sizes[0].y / sizes[0].z);
    let first_row = flat_group / parts % tiles * 32u;
    let seen = past + min(count, first_row + 32u);
    let key_tiles = (past + count + 31u) / 32u;
    let part_keys = (key_tiles + parts - 1u) / parts * 32u;
    let end = min(seen, (part + 1u) * part_keys);
    // The last key that each of four rows sees.
    let last = vec4<u32>(past + first_row + local.y * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    var sums0: array<vec4<f32>, 4>;
    var sums1: array<vec4<f32>, 4>;
    var sums2: array<vec4<f32>, 4>;
    var sums3: array<vec4<f32>, 4>;
    var top = vec4<f32>(LOWEST);
    // Of the weights of every eighth group of four keys.
    var total = vec4<f32>();

    for (var first_key = part * part_keys; first_key < end; first_key += 32u) {
        // By key, of four rows. Written out: SwiftShader clears a variable without a value once, not
        // every time round.
        var a = vec4<f32>();
        var b = vec4<f32>();
        var c = vec4<f32>();
        var d = vec4<f32>();
        for (var chunk = 0u; chunk < $CHUNKSu; chunk++) {
            // Four rows by four channels in each invocation, turned over on their way.
            let quad = lane / 8u * 4u;
            let channel = chunk * 32u + quad;
            let row = first_row + lane % 8u * 4u;
            let key = first_key + lane % 8u * 4u;
            let rows_turned = transpose(mat4x4<f32>(
                query(row, head, channel), query(row + 1u, head, channel),
                query(row + 2u, head, channel), query(row + 3u, head, channel),
            ));
            let keys_turned = transpose(mat4x4<f32>(
                key_of(key_head, key, channel, seen), key_of(key_head, key + 1u, channel, seen),
                key_of(key_head, key + 2u, channel, seen), key_of(key_head, key + 3u, channel, seen),
            ));
            let place = quad * 8u + lane % 8u;
            left[place] = rows_turned[0];
            left[place + 8u] = rows_turned[1];
            left[place + 16u] = rows_turned[2];
            left[place + 24u] = rows_turned[3];
            right[place] = keys_turned[0];
            right[place + 8u] = keys_turned[1];
            right[place + 16u] = keys_turned[2];
            right[place + 24u] = keys_turned[3];
            workgroupBarrier();
            for (var channel = 0u; channel < 32u; channel++) {
                let rows = left[channel * 8u + local.y];
                let columns = right[channel * 8u + local.x];
                a += columns.x * rows;
                b += columns.y * rows;
                c += columns.z * rows;
                d += columns.w * rows;
            }
            workgroupBarrier();
        }
        let key = first_key + local.x * 4u;
        a = select(a * factor, vec4<f32>(LOWEST), vec4<u32>(key) > last);
        b = select(b * factor, vec4<f32>(LOWEST), vec4<u32>(key + 1u) > last);
        c = select(c * factor, vec4<f32>(LOWEST), vec4<u32>(key + 2u) > last);
        d = select(d * factor, vec4<f32>(LOWEST), vec4<u32>(key + 3u) > last);
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
        add_values(&sums0, 0u, shrink, key_head, first_key, seen, local);
        if $CHUNKSu > 1u {
            add_values(&sums1, 1u, shrink, key_head, first_key, seen, local);
        }
        if $CHUNKSu > 2u {
            add_values(&sums2, 2u, shrink, key_head, first_key, seen, local);
        }
        if $CHUNKSu > 3u {
            add_values(&sums3, 3u, shrink, key_head, first_key, seen, local);
        }
    }
    right[local.x * 8u + local.y] = total;
    workgroupBarrier();
    total = vec4<f32>();
    for (var x = 0u; x < 8u; x++) {
        total += right[x * 8u + local.y];
    }
    let row = first_row + local.y * 4u;
    let place = Place(head, part);
    let factors = select(1.0 / total, vec4<f32>(1.0), parts > 1u);
    put_chunk(sums0, 0u, row, local.x, place, factors);
    if $CHUNKSu > 1u {
        put_chunk(sums1, 1u, row, local.x, place, factors);
    }
    if $CHUNKSu > 2u {
        put_chunk(sums2, 2u, row, local.x, place, factors);
    }
    if $CHUNKSu > 3u {
        put_chunk(sums3, 3u, row, local.x, place, factors);
    }
    if parts > 1u && local.x == 0u {
        for (var i = 0u; i < 4u; i++) {
            if row + i < count {
                mixed[start_of(row + i, place) + sizes[0].w / 2u] = vec2<f32>(top[i], total[i]);
            }
        }
    }
}
