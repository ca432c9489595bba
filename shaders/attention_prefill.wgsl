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
// 4 * 32 * 32 * W operations on 2 * 32 * W numbers of the cache. W is a multiple of 4.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, read_write> mixed: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;

// [channel, row or key] of queries and keys; [key, channel] of values.
var<workgroup> left: array<vec4<f32>, 256>;
var<workgroup> right: array<vec4<f32>, 256>;
// [row, key], a row and one.
var<workgroup> weights: array<f32, 32 * 33>;
var<workgroup> tops: array<f32, 32>;
var<workgroup> totals: array<f32, 32>;
var<workgroup> shrinks: array<f32, 32>;

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

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = sizes[0].x;
    let heads = sizes[0].y;
    let width = sizes[0].w;
    let past = sizes[1].y;
    let tiles = (count + 31u) / 32u;
    let parts = sizes[1].w;
    let split = parts > 1u;
    let flat_group = group.y * groups.x + group.x;
    let part = flat_group % parts;
    let head = flat_group / parts / tiles;
    if head >= heads {
        return;
    }
    let key_head = head / (heads / sizes[0].z);
    let first_row = flat_group / parts % tiles * 32u;
    let seen = past + min(count, first_row + 32u);
    let key_tiles = (past + count + 31u) / 32u;
    let part_keys = (key_tiles + parts - 1u) / parts * 32u;
    let end = min(seen, (part + 1u) * part_keys);
    var sums: array<vec4<f32>, $CHUNKS * 4>;
    if lane < 32u {
        tops[lane] = LOWEST;
        totals[lane] = 0.0;
    }

    for (var first_key = part * part_keys; first_key < end; first_key += 32u) {
        // Written out: SwiftShader clears a variable without a value once, not every time round.
        var scores = array<vec4<f32>, 4>(vec4<f32>(), vec4<f32>(), vec4<f32>(), vec4<f32>());
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
                scores[0] += rows.x * columns;
                scores[1] += rows.y * columns;
                scores[2] += rows.z * columns;
                scores[3] += rows.w * columns;
            }
            workgroupBarrier();
        }
        for (var i = 0u; i < 4u; i++) {
            let row = local.y * 4u + i;
            for (var j = 0u; j < 4u; j++) {
                let key = local.x * 4u + j;
                let hidden = first_key + key > past + first_row + row;
                let score = scores[i][j] * bitcast<f32>(sizes[1].z);
                weights[row * 33u + key] = select(score, LOWEST, hidden);
            }
        }
        workgroupBarrier();
        if lane < 32u {
            var top = tops[lane];
            for (var key = 0u; key < 32u; key++) {
                top = max(top, weights[lane * 33u + key]);
            }
            let shrink = exp(tops[lane] - top);
            var total = totals[lane] * shrink;
            for (var key = 0u; key < 32u; key++) {
                let score = weights[lane * 33u + key];
                let weight = select(exp(score - top), 0.0, score == LOWEST);
                weights[lane * 33u + key] = weight;
                total += weight;
            }
            tops[lane] = top;
            totals[lane] = total;
            shrinks[lane] = shrink;
        }
        workgroupBarrier();
        for (var chunk = 0u; chunk < $CHUNKSu; chunk++) {
            for (var at = lane; at < 256u; at += 64u) {
                let key = first_key + at / 8u;
                let channel = chunk * 32u + at % 8u * 4u;
                var four = vec4<f32>();
                if key < seen && channel < width {
                    four = loaded(values[cached(key_head, key, channel)]);
                }
                right[at] = four;
            }
            workgroupBarrier();
            for (var i = 0u; i < 4u; i++) {
                let row = local.y * 4u + i;
                var sum = sums[chunk * 4u + i] * shrinks[row];
                for (var key = 0u; key < 32u; key++) {
                    sum += weights[row * 33u + key] * right[key * 8u + local.x];
                }
                sums[chunk * 4u + i] = sum;
            }
            workgroupBarrier();
        }
    }
    // The last rows were left behind a barrier, unless there were no keys.
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        let row = local.y * 4u + i;
        if first_row + row >= count {
            continue;
        }
        let place = ((first_row + row) * heads + head) * parts + part;
        let start = place * select(width, width + 2u, split) / 2u;
        let factor = select(1.0 / totals[row], 1.0, split);
        for (var chunk = 0u; chunk < $CHUNKSu; chunk++) {
            let channel = chunk * 32u + local.x * 4u;
            if channel < width {
                let four = sums[chunk * 4u + i] * factor;
                mixed[start + channel / 2u] = four.xy;
                mixed[start + channel / 2u + 1u] = four.zw;
            }
        }
        if split && local.x == 0u {
            mixed[start + width / 2u] = vec2<f32>(tops[row], totals[row]);
        }
    }
}
