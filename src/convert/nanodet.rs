//! The weights of NanoDet-g in a TensorFlow.js graph model.
//!
//! Such a file has no names of layers. The graph is followed from the outputs to the input, and every
//! convolution gets the name that its place has in the original checkpoint:
//!
//! | place | name |
//! |---|---|
//! | first convolution | `backbone.stages.0.conv` |
//! | stage `s` (0 after the max-pool), its convolution of stride 1 or 2 | `backbone.stages.{s + 2}.in_conv.conv` |
//! | its residual block `r`, the two convolutions | `….res_blocks.{r}.in_conv.conv`, `….mid_conv.conv` |
//! | its last convolution | `….res_out_conv.conv` |
//! | 1 x 1 convolution from the trunk to level `l` | `fpn.lateral_convs.{l}.conv` |
//! | 3 x 3 convolution of the head of level `l` | `head.cls_convs.{l}.0.conv` |
//! | 1 x 1 convolution of the head of level `l` | `head.gfl_cls.{l}` |
//!
//! Each has `weight` and `bias`; the graph's batch norms are folded already. Kernels are transposed from
//! `[kH, kW, I, O]` to `[O, I, kH, kW]`, and the input channels of the first one are reversed, from BGR
//! to RGB. Strides, padding, slopes and interpolation are compared with those of
//! [`NanoDet`](crate::model::nanodet::NanoDet).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tfjs::{GraphModel, Node, node_of};
use crate::error::{ErrorCode, Fault};
use crate::model::nanodet::{COCO_CLASSES, NanoDetConfig};

/// `VALID` in base64.
const VALID: &str = "VkFMSUQ=";
/// `NHWC` in base64.
const NHWC: &str = "TkhXQw==";
/// Slope of the leaky ReLU.
const SLOPE: f64 = 0.1;
/// Convolutions of the network with the most stages and blocks that are read.
const MAX_CONVOLUTIONS: usize = 1000;

/// A convolution of the graph.
#[derive(Clone, Debug)]
struct Convolution {
    kernel: String,
    bias: String,
    stride: i64,
    /// What it reads, before padding.
    input: String,
}

/// The weights by their names in the original checkpoint.
#[derive(Debug)]
pub struct NanoDetWeights {
    graph: GraphModel,
    convolutions: BTreeMap<String, Convolution>,
    /// The sizes of the network.
    pub config: NanoDetConfig,
}

impl NanoDetWeights {
    /// Opens the graph model in the JSON file `path`.
    ///
    /// # Errors
    /// The file is damaged (see [`GraphModel::open`]) or holds another network.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let graph = GraphModel::open(path)?;
        let (convolutions, config) = Walk(&graph).network()?;
        config.check(graph.place())?;
        Ok(Self {
            graph,
            convolutions,
            config,
        })
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let stems = self.convolutions.keys();
        stems.flat_map(|stem| [format!("{stem}.bias"), format!("{stem}.weight")])
    }

    /// The constant of tensor `name`, and whether it is the kernel of the convolution.
    fn constant(&self, name: &str) -> Option<(&str, bool)> {
        if let Some(stem) = name.strip_suffix(".weight") {
            return Some((&self.convolutions.get(stem)?.kernel, true));
        }
        let stem = name.strip_suffix(".bias")?;
        Some((&self.convolutions.get(stem)?.bias, false))
    }

    /// The shape of tensor `name`, `[O, I, kH, kW]` or `[O]`; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (constant, _) = self.constant(name)?;
        match self.graph.shape(constant).ok()? {
            &[height, width, inputs, outputs] => Some(vec![outputs, inputs, height, width]),
            other => Some(other.to_vec()),
        }
    }

    /// Bytes of tensor `name` in the file; 0 if there is none.
    pub fn bytes(&self, name: &str) -> u64 {
        self.constant(name)
            .map_or(0, |(constant, _)| self.graph.bytes(constant))
    }

    /// The values of tensor `name`, row-major.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, Fault> {
        let Some((constant, is_kernel)) = self.constant(name) else {
            return Err(self.graph.fault(name, "is no tensor of the detector"));
        };
        let values = self.graph.floats(constant)?;
        match self.graph.shape(constant)? {
            &[height, width, inputs, outputs] if is_kernel => {
                let reversed = name == "backbone.stages.0.conv.weight";
                let shape = [height, width, inputs, outputs];
                Ok(transposed(&values, shape, reversed))
            }
            _ => Ok(values),
        }
    }

    /// The file and the constant of tensor `name`, for messages.
    pub fn place(&self, name: &str) -> String {
        match self.constant(name) {
            Some((constant, _)) => format!("{}, {constant} ({name})", self.graph.place()),
            None => format!("{}, {name}", self.graph.place()),
        }
    }
}

/// `[kH, kW, I, O]` to `[O, I, kH, kW]`, with the input channels in reverse order if `reversed`.
fn transposed(
    values: &[f32],
    [height, width, inputs, outputs]: [usize; 4],
    reversed: bool,
) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    if values.is_empty() {
        return result;
    }
    for o in 0..outputs {
        for i in 0..inputs {
            let i = if reversed { inputs - 1 - i } else { i };
            for place in 0..height * width {
                result.push(values[(place * inputs + i) * outputs + o]);
            }
        }
    }
    result
}

/// Follows the graph from outputs to the input.
struct Walk<'a>(&'a GraphModel);

impl<'a> Walk<'a> {
    /// Every convolution by its name, and the sizes of the network.
    fn network(&self) -> Result<(BTreeMap<String, Convolution>, NanoDetConfig), Fault> {
        let mut found = BTreeMap::new();
        let heads = self.heads()?;
        let mut bins = None;
        for (level, head) in heads.iter().enumerate() {
            let sizes = self.graph_sizes(&head.split)?;
            if *bins.get_or_insert(sizes) != sizes {
                return Err(self.other(&head.split, "splits into other sizes"));
            }
            found.insert(format!("head.gfl_cls.{level}"), head.last.clone());
            found.insert(format!("head.cls_convs.{level}.0.conv"), head.first.clone());
        }
        let (classes, distances) = bins.unwrap_or_default();
        let laterals = self.neck(&heads)?;
        let mut sources = Vec::new();
        for (level, lateral) in laterals.into_iter().enumerate() {
            sources.push(self.skip(&lateral.input)?.name.clone());
            found.insert(format!("fpn.lateral_convs.{level}.conv"), lateral);
        }
        let (trunk, blocks, side) = self.trunk(&sources)?;
        found.extend(trunk);
        let outputs = |stem: &str| {
            let kernel = self.0.shape(&found[stem].kernel)?;
            Ok(kernel.last().copied().unwrap_or_default())
        };
        if classes != COCO_CLASSES.len() {
            return Err(self.other(
                &heads[0].split,
                &format!("has {classes} classes; names are known of the 80 of COCO"),
            ));
        }
        let config = NanoDetConfig {
            side,
            blocks,
            stem: outputs("backbone.stages.0.conv")?,
            neck: outputs("fpn.lateral_convs.0.conv")?,
            reg_max: (distances / 4).saturating_sub(1),
            ..NanoDetConfig::nanodet_g()
        };
        Ok((found, config))
    }

    /// A fault of node `name`: the graph is not this network.
    fn other(&self, name: &str, what: &str) -> Fault {
        let (name, _) = node_of(name);
        self.0
            .fault(name, &format!("{what}: the graph is not NanoDet-g"))
            .code(ErrorCode::Unsupported)
    }

    fn input(&self, node: &'a Node, index: usize) -> Result<&'a str, Fault> {
        let input = node.input.get(index).map(String::as_str);
        input.ok_or_else(|| self.other(&node.name, &format!("lacks input {index}")))
    }

    /// The node that `input` names, or the nearest one above it that changes values.
    fn skip(&self, input: &str) -> Result<&'a Node, Fault> {
        let mut node = self.0.node(input)?;
        for _ in 0..MAX_CONVOLUTIONS {
            match &*node.op {
                "Identity" | "Transpose" | "Reshape" => node = self.0.node(self.input(node, 0)?)?,
                _ => return Ok(node),
            }
        }
        Err(self.other(&node.name, "is in a cycle"))
    }

    fn expect(&self, input: &str, ops: &[&str]) -> Result<&'a Node, Fault> {
        let node = self.skip(input)?;
        if ops.contains(&&*node.op) {
            return Ok(node);
        }
        let what = format!("is {} instead of {}", node.op, ops.join(" or "));
        Err(self.other(&node.name, &what))
    }

    /// Fails unless `found` is `expected`.
    fn check<T: PartialEq + std::fmt::Debug>(
        &self,
        node: &Node,
        what: &str,
        found: T,
        expected: T,
    ) -> Result<(), Fault> {
        if found == expected {
            return Ok(());
        }
        let what = format!("has {what} {found:?} instead of {expected:?}");
        Err(self.other(&node.name, &what))
    }

    /// The convolution with a square kernel of `side` whose bias, and leaky ReLU if `activated`, end at
    /// `output`.
    fn convolution(
        &self,
        output: &str,
        side: usize,
        activated: bool,
    ) -> Result<Convolution, Fault> {
        let mut output = output;
        if activated {
            let node = self.expect(output, &["LeakyRelu"])?;
            let slope = node.float("alpha").unwrap_or(0.2);
            if (slope - SLOPE).abs() > 1e-6 {
                return Err(self.other(&node.name, &format!("has the slope {slope}")));
            }
            output = self.input(node, 0)?;
        }
        let add = self.expect(output, &["Add", "AddV2", "BiasAdd"])?;
        let (mut from, mut bias) = (self.input(add, 0)?, self.input(add, 1)?);
        if self.0.is_constant(from) {
            std::mem::swap(&mut from, &mut bias);
        }
        let conv = self.expect(from, &["Conv2D"])?;
        self.check(conv, "padding", conv.base64("padding"), Some(VALID))?;
        let format = conv.base64("data_format").unwrap_or(NHWC);
        self.check(conv, "data_format", format, NHWC)?;
        let dilations = conv.integers("dilations").unwrap_or(vec![1; 4]);
        self.check(conv, "dilations", dilations, vec![1; 4])?;
        let strides = conv.integers("strides").unwrap_or_default();
        let &[1, stride, other, 1] = strides.as_slice() else {
            return Err(self.other(&conv.name, &format!("has the strides {strides:?}")));
        };
        self.check(conv, "strides", stride, other)?;
        let kernel = self.input(conv, 1)?;
        let shape = self.0.shape(kernel)?;
        let &[height, width, _, outputs] = shape else {
            return Err(self.other(kernel, &format!("has the shape {shape:?}")));
        };
        self.check(conv, "a kernel of", [height, width], [side; 2])?;
        let biases = self.0.shape(bias)?;
        self.check(add, "a bias of", biases, &[outputs])?;
        let mut input = self.input(conv, 0)?;
        if side > 1 {
            let pad = self.expect(input, &["Pad", "PadV2"])?;
            if pad.op == "PadV2" {
                let value = self.0.floats(self.input(pad, 2)?)?;
                self.check(pad, "padding with", value, vec![0.0])?;
            }
            input = self.padded(pad)?;
        }
        Ok(Convolution {
            kernel: kernel.to_string(),
            bias: bias.to_string(),
            stride,
            input: input.to_string(),
        })
    }

    /// The input of a padding by one row and column on each side.
    fn padded(&self, pad: &'a Node) -> Result<&'a str, Fault> {
        let widths = self.0.integers(self.input(pad, 1)?)?;
        let (planar, interleaved) = ([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0, 0]);
        if widths != interleaved {
            self.check(pad, "padding", widths, planar.to_vec())?;
        }
        self.input(pad, 0)
    }

    /// The heads, finest level first.
    fn heads(&self) -> Result<Vec<Head>, Fault> {
        let read: BTreeSet<&str> = self
            .0
            .nodes()
            .flat_map(|node| &node.input)
            .map(|input| node_of(input).0)
            .collect();
        let mut heads = BTreeMap::new();
        for output in self.0.nodes().filter(|node| !read.contains(&*node.name)) {
            if output.op == "Const" || output.op == "Placeholder" {
                continue;
            }
            let node = self.expect(&output.name, &["Sigmoid", "SplitV"])?;
            // Scores are part 0 of the split, distances part 1 and without a sigmoid.
            if node.op == "Sigmoid" {
                let split = self.expect(self.input(node, 0)?, &["SplitV"])?;
                let last = self.convolution(self.input(split, 0)?, 1, false)?;
                let first = self.convolution(&last.input, 3, true)?;
                let level = self.skip(&first.input)?.name.clone();
                let part = node_of(self.input(node, 0)?).1;
                self.check(node, "scores at part", part, 0)?;
                let head = Head {
                    split: split.name.clone(),
                    first,
                    last,
                    level,
                };
                heads.insert(self.ancestors(&head.level).len(), head);
            }
        }
        if heads.len() != 3 {
            let count = heads.len();
            let what = format!("{count} levels of different depth instead of 3");
            return Err(self.other("outputs", &what));
        }
        Ok(heads.into_values().collect())
    }

    /// The parts into which a head's output is split: scores and distances.
    fn graph_sizes(&self, split: &str) -> Result<(usize, usize), Fault> {
        let node = self.0.node(split)?;
        let sizes = self.0.integers(self.input(node, 1)?)?;
        let sizes: Option<Vec<usize>> = sizes.iter().map(|&n| usize::try_from(n).ok()).collect();
        match sizes.as_deref() {
            Some(&[classes, distances]) if distances > 0 && distances.is_multiple_of(4) => {
                Ok((classes, distances))
            }
            _ => Err(self.other(split, "does not split into scores and distances")),
        }
    }

    /// The lateral convolutions of the neck, finest level first.
    fn neck(&self, heads: &[Head]) -> Result<Vec<Convolution>, Fault> {
        let [fine, middle, coarse] = [0, 1, 2].map(|level| &*heads[level].level);
        let (coarse_lateral, from) = self.sum(coarse)?;
        self.check(self.0.node(coarse)?, "below it", &*from.name, middle)?;
        let (middle_sum, from) = self.sum(middle)?;
        self.check(self.0.node(middle)?, "below it", &*from.name, fine)?;
        let (fine_lateral, from) = self.sum(fine)?;
        self.check(self.0.node(fine)?, "above it", &from.name, &middle_sum.name)?;
        let (middle_lateral, from) = self.sum(&middle_sum.name)?;
        self.check(middle_sum, "above it", &from.name, &coarse_lateral.name)?;
        [fine_lateral, middle_lateral, coarse_lateral]
            .iter()
            .map(|lateral| self.convolution(&lateral.name, 1, false))
            .collect()
    }

    /// The operands of a sum of a level and an interpolated level: the first, and the source of the
    /// second.
    fn sum(&self, name: &str) -> Result<(&'a Node, &'a Node), Fault> {
        let add = self.expect(name, &["Add", "AddV2"])?;
        let mut operands = Vec::new();
        for index in 0..2 {
            operands.push(self.skip(self.input(add, index)?)?);
        }
        operands.sort_by_key(|node| node.op == "ResizeBilinear");
        let [level, resize] = operands[..] else {
            return Err(self.other(name, "has no two operands"));
        };
        self.check(resize, "the operation", &*resize.op, "ResizeBilinear")?;
        let half_pixel = resize.flag("half_pixel_centers").unwrap_or(false);
        self.check(resize, "half_pixel_centers", half_pixel, true)?;
        let align = resize.flag("align_corners").unwrap_or(false);
        self.check(resize, "align_corners", align, false)?;
        Ok((level, self.skip(self.input(resize, 0)?)?))
    }

    /// The trunk: convolutions by name, residual blocks of each stage, and the side of the input.
    /// `sources` are the outputs of the last stages, finest first.
    #[expect(clippy::type_complexity, reason = "the three results of one walk")]
    fn trunk(
        &self,
        sources: &[String],
    ) -> Result<(Vec<(String, Convolution)>, Vec<usize>, usize), Fault> {
        let mut stages = Vec::new();
        let mut node = self.0.node(&sources[sources.len() - 1])?;
        while node.op == "ConcatV2" {
            if stages.len() > MAX_CONVOLUTIONS {
                return Err(self.other(&node.name, "is in a cycle"));
            }
            let stage = self.stage(&node.name)?;
            node = self.skip(&stage.in_conv.input)?;
            stages.push(stage);
        }
        stages.reverse();
        let last = stages.len().checked_sub(sources.len());
        let ends = last.map(|first| stages[first..].iter().map(|stage| &stage.output));
        if !ends.is_some_and(|ends| ends.eq(sources)) {
            return Err(self.other(&node.name, "the neck does not read the last three stages"));
        }
        let pool = self.expect(&node.name, &["MaxPool"])?;
        for (attribute, side) in [("ksize", 3), ("strides", 2)] {
            let found = pool.integers(attribute).unwrap_or_default();
            self.check(pool, attribute, found, vec![1, side, side, 1])?;
        }
        self.check(pool, "padding", pool.base64("padding"), Some(VALID))?;
        let pad = self.expect(self.input(pool, 0)?, &["PadV2"])?;
        let value = self.0.floats(self.input(pad, 2)?)?;
        self.check(pad, "padding with", value, vec![f32::NEG_INFINITY])?;
        let stem = self.convolution(self.padded(pad)?, 3, true)?;
        let image = self.expect(&stem.input, &["Placeholder"])?;
        let shape = image.shape().unwrap_or_default();
        let &[_, 3, height, width] = shape.as_slice() else {
            return Err(self.other(&image.name, &format!("has the shape {shape:?}")));
        };
        self.check(image, "the height", height, width)?;
        let side = usize::try_from(height)
            .map_err(|_| self.other(&image.name, &format!("has the shape {shape:?}")))?;
        self.check(pool, "before it a stride of", stem.stride, 2)?;
        let mut named = vec![("backbone.stages.0.conv".to_string(), stem)];
        let mut blocks = Vec::new();
        for (s, stage) in stages.into_iter().enumerate() {
            let node = self.0.node(&stage.output)?;
            let stride = if s == 0 { 1 } else { 2 };
            self.check(node, "a stride of", stage.in_conv.stride, stride)?;
            let at = format!("backbone.stages.{}", s + 2);
            blocks.push(stage.blocks.len());
            named.push((format!("{at}.in_conv.conv"), stage.in_conv));
            named.push((format!("{at}.res_out_conv.conv"), stage.out_conv));
            for (r, [first, second]) in stage.blocks.into_iter().enumerate() {
                let at = format!("{at}.res_blocks.{r}");
                named.push((format!("{at}.in_conv.conv"), first));
                named.push((format!("{at}.mid_conv.conv"), second));
            }
        }
        Ok((named, blocks, side))
    }

    /// The stage whose output is the concatenation `output`.
    fn stage(&self, output: &str) -> Result<Stage, Fault> {
        let (out, input) = self.concatenated(output)?;
        let out_conv = self.convolution(out, 3, true)?;
        let in_conv = self.convolution(input, 3, true)?;
        let first = &self.skip(input)?.name;
        let mut blocks = Vec::new();
        let mut node = self.skip(&out_conv.input)?;
        while node.name != *first {
            if blocks.len() > MAX_CONVOLUTIONS {
                return Err(self.other(output, "is in a cycle"));
            }
            let (mid, inner) = self.concatenated(&node.name)?;
            let mid_conv = self.convolution(mid, 3, true)?;
            let inner_conv = self.convolution(inner, 3, true)?;
            let source = &self.skip(&mid_conv.input)?.name;
            self.check(node, "above it", source, &self.skip(inner)?.name)?;
            node = self.skip(&inner_conv.input)?;
            for conv in [&mid_conv, &inner_conv] {
                self.check(node, "a stride of", conv.stride, 1)?;
            }
            blocks.push([inner_conv, mid_conv]);
        }
        blocks.reverse();
        Ok(Stage {
            output: self.0.node(output)?.name.clone(),
            in_conv,
            blocks,
            out_conv,
        })
    }

    /// The two parts of a concatenation of channels.
    fn concatenated(&self, name: &str) -> Result<(&'a str, &'a str), Fault> {
        let node = self.expect(name, &["ConcatV2"])?;
        self.check(node, "inputs", node.input.len(), 3)?;
        let axis = self.0.integers(self.input(node, 2)?)?;
        self.check(node, "the axis", axis, vec![1])?;
        Ok((self.input(node, 0)?, self.input(node, 1)?))
    }

    /// The names of all nodes above `name`, and itself.
    fn ancestors(&self, name: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut pending = vec![name];
        while let Some(name) = pending.pop() {
            let (name, _) = node_of(name);
            if found.insert(name)
                && let Ok(node) = self.0.node(name)
            {
                pending.extend(node.input.iter().map(String::as_str));
            }
        }
        found
    }
}

/// The head of one level.
struct Head {
    /// The node that splits its output.
    split: String,
    first: Convolution,
    last: Convolution,
    /// The node of the neck that it reads.
    level: String,
}

/// A stage of the trunk.
struct Stage {
    output: String,
    in_conv: Convolution,
    blocks: Vec<[Convolution; 2]>,
    out_conv: Convolution,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use burn::tensor::{Device, Tensor};
    use serde_json::{Value, json};

    use super::*;
    use crate::model::nanodet::NanoDet;
    use crate::nn::{Init, Loader, WeightSource};

    /// A graph as the converters from PyTorch over ONNX write it.
    #[derive(Default)]
    pub struct Builder {
        nodes: Vec<Value>,
        weights: Vec<Value>,
        bytes: Vec<u8>,
    }

    impl Builder {
        fn floats(&mut self, shape: &[usize]) -> String {
            let name = format!("w{}", self.weights.len());
            for index in 0..shape.iter().product() {
                let value = half::f16::from_f32((index % 500) as f32 / 64.0 - 3.0);
                self.bytes.extend(value.to_le_bytes());
            }
            let quantization = json!({"dtype": "float16", "original_dtype": "float32"});
            self.weights.push(json!(
                {"name": name, "shape": shape, "dtype": "float32", "quantization": quantization}));
            name
        }

        fn constant(&mut self, shape: &[usize], dtype: &str, words: &[[u8; 4]]) -> String {
            let name = format!("w{}", self.weights.len());
            self.bytes.extend(words.concat());
            let entry = json!({"name": name, "shape": shape, "dtype": dtype});
            self.weights.push(entry);
            name
        }

        fn integers(&mut self, shape: &[usize], values: &[i32]) -> String {
            let words: Vec<_> = values.iter().map(|value| value.to_le_bytes()).collect();
            self.constant(shape, "int32", &words)
        }

        fn node(&mut self, op: &str, inputs: &[&str], attr: Value) -> String {
            let name = format!("n{}", self.nodes.len());
            let node = json!({"name": name, "op": op, "input": inputs, "attr": attr});
            self.nodes.push(node);
            name
        }

        fn pad(&mut self, input: &str) -> String {
            let widths = self.integers(&[4, 2], &[0, 0, 0, 0, 1, 1, 1, 1]);
            self.node("Pad", &[input, &widths], json!({}))
        }

        fn conv(&mut self, input: &str, sizes: [usize; 3], stride: usize) -> String {
            let [inputs, outputs, side] = sizes;
            let kernel = self.floats(&[side, side, inputs, outputs]);
            let bias = self.floats(&[outputs]);
            let padded = match side {
                1 => input.to_string(),
                _ => self.pad(input),
            };
            let stride = stride.to_string();
            let attr = json!({
                "padding": {"s": VALID},
                "data_format": {"s": NHWC},
                "strides": {"list": {"i": ["1", stride, stride, "1"]}},
                "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
            });
            let turned = self.node("Transpose", &[&padded, "perm"], json!({}));
            let conv = self.node("Conv2D", &[&turned, &kernel], attr);
            let sum = self.node("Add", &[&conv, &bias], json!({}));
            self.node("Transpose", &[&sum, "perm"], json!({}))
        }

        fn module(&mut self, input: &str, inputs: usize, outputs: usize, stride: usize) -> String {
            let conv = self.conv(input, [inputs, outputs, 3], stride);
            self.node("LeakyRelu", &[&conv], json!({"alpha": {"f": 0.1}}))
        }

        fn concat(&mut self, a: &str, b: &str) -> String {
            let axis = self.integers(&[], &[1]);
            self.node("ConcatV2", &[a, b, &axis], json!({"N": {"i": "2"}}))
        }

        fn resized(&mut self, level: &str, other: &str) -> String {
            let size = self.integers(&[2], &[4, 4]);
            let attr = json!({"half_pixel_centers": {"b": true}, "align_corners": {"b": false}});
            let resize = self.node("ResizeBilinear", &[other, &size], attr);
            self.node("Add", &[level, &resize], json!({}))
        }

        /// A detector with a stem of 4 channels, a neck of 6 and stages of 1, 2 and 1 blocks.
        pub fn detector() -> Self {
            let mut b = Self::default();
            let sides = ["1", "3", "64", "64"].map(|size| json!({"size": size}));
            let shape = json!({"shape": {"shape": {"dim": sides}}});
            let image = b.node("Placeholder", &[], shape);
            let stem = b.module(&image, 3, 4, 2);
            let widths = b.integers(&[4, 2], &[0, 0, 0, 0, 1, 1, 1, 1]);
            let least = b.constant(&[], "float32", &[f32::NEG_INFINITY.to_le_bytes()]);
            let padded = b.node("PadV2", &[&stem, &widths, &least], json!({}));
            let mut x = b.node(
                "MaxPool",
                &[&padded],
                json!({
                    "ksize": {"list": {"i": ["1", "3", "3", "1"]}},
                    "strides": {"list": {"i": ["1", "2", "2", "1"]}},
                    "padding": {"s": VALID},
                }),
            );
            let mut levels = Vec::new();
            for (s, blocks) in [1, 2, 1].into_iter().enumerate() {
                let width = 4 << s;
                let first = b.module(&x, width, width, if s == 0 { 1 } else { 2 });
                let mut y = first.clone();
                for _ in 0..blocks {
                    let inner = b.module(&y, width, width / 2, 1);
                    let mid = b.module(&inner, width / 2, width / 2, 1);
                    y = b.concat(&mid, &inner);
                }
                let last = b.module(&y, width, width, 1);
                x = b.concat(&last, &first);
                levels.push((x.clone(), 2 * width));
            }
            let laterals: Vec<String> = levels
                .iter()
                .map(|(level, width)| b.conv(level, [*width, 6, 1], 1))
                .collect();
            let middle = b.resized(&laterals[1], &laterals[2]);
            let fine = b.resized(&laterals[0], &middle);
            let middle = b.resized(&middle, &fine);
            let coarse = b.resized(&laterals[2], &middle);
            for level in [fine, middle, coarse] {
                let first = b.module(&level, 6, 6, 1);
                let last = b.conv(&first, [6, 80 + 8, 1], 1);
                let sizes = b.integers(&[2], &[80, 8]);
                let split = b.node("SplitV", &[&last, &sizes, "axis"], json!({}));
                let scores = b.node("Sigmoid", &[&split], json!({}));
                let distances = format!("{split}:1");
                for part in [scores, distances] {
                    let part = b.node("Reshape", &[&part, "shape"], json!({}));
                    b.node("Identity", &[&part], json!({}));
                }
            }
            b
        }

        pub fn write(&self, folder: &Path) -> std::path::PathBuf {
            let path = folder.join("model.json");
            let json = json!({
                "format": "graph-model",
                "modelTopology": {"node": self.nodes},
                "weightsManifest": [{"paths": ["weights.bin"], "weights": self.weights}],
            });
            std::fs::write(&path, json.to_string()).expect("a writable folder");
            std::fs::write(folder.join("weights.bin"), &self.bytes).expect("a writable folder");
            path
        }

        fn open(&self) -> Result<NanoDetWeights, Fault> {
            let folder = tempfile::tempdir().expect("a temporary folder");
            NanoDetWeights::open(&self.write(folder.path()))
        }

        /// The first node of operation `op`.
        fn first(&mut self, op: &str) -> &mut Value {
            let found = self.nodes.iter_mut().find(|node| node["op"] == op);
            found.expect("a node of this operation")
        }
    }

    /// The shapes that the network requests.
    #[derive(Default)]
    struct Requested(RefCell<BTreeMap<String, Vec<usize>>>);

    impl WeightSource for Requested {
        fn tensor(
            &self,
            name: &str,
            shape: &[usize],
            _: &Init,
            device: &Device,
        ) -> Result<Tensor<1>, Fault> {
            self.0.borrow_mut().insert(name.into(), shape.to_vec());
            Ok(Tensor::zeros([shape.iter().product::<usize>()], device))
        }
    }

    #[test]
    fn every_convolution_gets_its_name() {
        let weights = Builder::detector().open().expect("a detector");
        let config = &weights.config;
        assert_eq!(config.blocks, [1, 2, 1]);
        let sizes = (config.stem, config.neck, config.reg_max, config.side);
        assert_eq!(sizes, (4, 6, 1, 64));
        let requested = Requested::default();
        NanoDet::load(&Loader::new(&requested, &Device::flex()), config).expect("zeros");
        let requested = requested.0.into_inner();
        let found: BTreeMap<String, Vec<usize>> = weights
            .names()
            .map(|name| (name.clone(), weights.shape(&name).expect("a listed tensor")))
            .collect();
        assert_eq!(found, requested);
        assert!(weights.shape("head.gfl_cls.3.weight").is_none());
        assert!(weights.values("backbone.weight").is_err());
    }

    #[test]
    fn kernels_are_transposed_and_the_first_one_reads_rgb() {
        let weights = Builder::detector().open().expect("a detector");
        let stored = |index: usize| (index % 500) as f32 / 64.0 - 3.0;
        for (name, reversed) in [
            ("backbone.stages.0.conv.weight", true),
            ("backbone.stages.3.in_conv.conv.weight", false),
        ] {
            let shape = weights.shape(name).expect("a tensor");
            let values = weights.values(name).expect("its values");
            let &[outputs, inputs, height, width] = shape.as_slice() else {
                panic!("{shape:?}");
            };
            for (index, value) in values.into_iter().enumerate() {
                let (x, y) = (index % width, index / width % height);
                let i = index / (width * height) % inputs;
                let o = index / (width * height * inputs);
                let i = if reversed { inputs - 1 - i } else { i };
                let expected = stored(((y * width + x) * inputs + i) * outputs + o);
                assert_eq!(value, expected, "{name} {o} {i} {y} {x}");
            }
        }
        let name = "head.gfl_cls.2.bias";
        let bias = weights.values(name).expect("its values");
        assert_eq!(bias, (0..88).map(stored).collect::<Vec<_>>());
    }

    #[test]
    fn other_networks_are_refused() {
        type Change = fn(&mut Builder);
        let cases: [(Change, &str); 12] = [
            (
                |b| b.first("LeakyRelu")["attr"]["alpha"]["f"] = json!(0.2),
                "has the slope 0.2",
            ),
            (
                |b| b.first("ResizeBilinear")["attr"]["align_corners"]["b"] = json!(true),
                "has align_corners true instead of false",
            ),
            (
                |b| b.first("ResizeBilinear")["attr"]["half_pixel_centers"]["b"] = json!(false),
                "has half_pixel_centers false instead of true",
            ),
            (
                |b| b.first("Conv2D")["attr"]["padding"]["s"] = json!("U0FNRQ=="),
                "has padding Some(\"U0FNRQ==\")",
            ),
            (
                |b| {
                    b.first("Conv2D")["attr"]["strides"]["list"]["i"] = json!(["1", "1", "1", "1"]);
                },
                "has before it a stride of 1 instead of 2",
            ),
            (
                |b| b.first("MaxPool")["attr"]["ksize"]["list"]["i"] = json!([1, 2, 2, 1]),
                "has ksize [1, 2, 2, 1] instead of [1, 3, 3, 1]",
            ),
            (
                |b| b.first("MaxPool")["op"] = json!("AvgPool"),
                "is AvgPool instead of MaxPool",
            ),
            (
                |b| b.first("Sigmoid")["op"] = json!("Softmax"),
                "is Softmax instead of Sigmoid",
            ),
            (|b| b.first("Pad")["input"] = json!([]), "lacks input 1"),
            (
                |b| b.first("Pad")["input"][0] = json!("nowhere"),
                "is no node of the graph",
            ),
            (
                |b| {
                    let name = b.first("Reshape")["name"].clone();
                    b.first("Reshape")["input"][0] = name;
                },
                "is in a cycle",
            ),
            (
                |b| {
                    let place = b.weights.iter().position(|w| w["shape"] == json!([6]));
                    b.weights[place.expect("a bias of the neck")]["shape"] = json!([2, 3]);
                },
                "has a bias of [2, 3] instead of [6]",
            ),
        ];
        for (change, message) in cases {
            let mut builder = Builder::detector();
            change(&mut builder);
            let fault = builder.open().expect_err(message).to_string();
            assert!(fault.contains(message), "{message}: {fault}");
        }
        let fault = Builder::default().open().expect_err("no outputs");
        assert!(
            fault.what.contains("0 levels of different depth"),
            "{fault}"
        );
        assert_eq!(fault.code, ErrorCode::Unsupported);
    }
}
