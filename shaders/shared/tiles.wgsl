// Tiles of a product: parts of both operands in workgroup memory, k by k, $ROW_QUADS vectors of four
// rows of x and $COLUMN_QUADS vectors of four rows of the matrix for each of $STEP k. A workgroup of
// $LANES must call. K is a multiple of 4, and of the unit.
var<workgroup> rows: array<vec4<f32>, $STEP * $ROW_QUADS>;
var<workgroup> columns: array<vec4<f32>, $STEP * $COLUMN_QUADS>;

fn weights_at(n: u32, k: u32) -> Slice {
    let width = sizes[0].z;
    if n >= sizes[0].y || k >= width {
        return slice_of(vec4<f32>(), vec4<f32>());
    }
    let weights = weights_of(words[n * (width / PER_UNIT) + k / PER_UNIT]);
    let first = n * width + k;
    let scale = vec4<f32>(scale_in(scale_word(first, sizes[0].w), first, sizes[0].w));
    return times(weights, slice_of(scale, scale));
}

// Lays out the parts from `start` on; four rows by four k at a time are turned over on their way.
fn lay_tiles(lane: u32, first_row: u32, first_column: u32, start: u32) {
    for (var at = lane; at < $STEPu / 4u * $ROW_QUADSu; at += $LANESu) {
        let quad = at % ($STEPu / 4u);
        let row = at / ($STEPu / 4u);
        let k = start + quad * 4u;
        let m = first_row + row * 4u;
        let turned = transpose(mat4x4<f32>(
            inputs_at(m, k), inputs_at(m + 1u, k), inputs_at(m + 2u, k), inputs_at(m + 3u, k),
        ));
        let place = quad * 4u * $ROW_QUADSu + row;
        rows[place] = turned[0];
        rows[place + $ROW_QUADSu] = turned[1];
        rows[place + 2u * $ROW_QUADSu] = turned[2];
        rows[place + 3u * $ROW_QUADSu] = turned[3];
    }
    for (var at = lane; at < $STEPu / PER_UNIT * $COLUMN_QUADSu; at += $LANESu) {
        let unit = at % ($STEPu / PER_UNIT);
        let column = at / ($STEPu / PER_UNIT);
        let k = start + unit * PER_UNIT;
        let n = first_column + column * 4u;
        let w0 = weights_at(n, k);
        let w1 = weights_at(n + 1u, k);
        let w2 = weights_at(n + 2u, k);
        let w3 = weights_at(n + 3u, k);
        var turned = transpose(mat4x4<f32>(
            first_four(w0), first_four(w1), first_four(w2), first_four(w3),
        ));
        let place = unit * PER_UNIT * $COLUMN_QUADSu + column;
        columns[place] = turned[0];
        columns[place + $COLUMN_QUADSu] = turned[1];
        columns[place + 2u * $COLUMN_QUADSu] = turned[2];
        columns[place + 3u * $COLUMN_QUADSu] = turned[3];
        if SLICE_VECTORS == 2u {
            turned = transpose(mat4x4<f32>(
                last_four(w0), last_four(w1), last_four(w2), last_four(w3),
            ));
            columns[place + 4u * $COLUMN_QUADSu] = turned[0];
            columns[place + 5u * $COLUMN_QUADSu] = turned[1];
            columns[place + 6u * $COLUMN_QUADSu] = turned[2];
            columns[place + 7u * $COLUMN_QUADSu] = turned[3];
        }
    }
}
