// Epilogue of a product: adds a bias or a residual, then writes the output.
fn store_output(m: u32, n: u32, product: f32) {
    let index = m * u.n_total + u.col_offset + n;
    var value = product;
    if u.epilogue == EPILOGUE_BIAS {
        value += added[u.col_offset + n];
    } else if u.epilogue == EPILOGUE_RESIDUAL {
        value += added[index];
    }
    y[index] = value;
}
