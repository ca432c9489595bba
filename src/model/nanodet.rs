//! NanoDet-g, a dense one-stage detector (RangiLyu/nanodet: `custom_csp.py`, `pan.py`,
//! `nanodet_head.py`; Generalized Focal Loss, Li et al. 2020, arXiv 2006.04388).
//!
//! A CSP trunk, a path aggregation network whose only convolutions are the lateral ones, and one head
//! per level. Every cell of a level predicts one score per class and the distances from its center to
//! the four edges of a box, each as a distribution over integer multiples of the stride. Batch norms
//! are folded into the convolutions before them. The original reads BGR; here the input channels of
//! the first convolution are stored in the order RGB.

use burn::module::Module;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::image::detector_recipe::DetectorRecipe;
use crate::nn::linear::Conv2dConfig;
use crate::nn::pool::{doubled, halved, max_pool2d};
use crate::nn::{Conv2d, Loader};

/// Slope of the leaky ReLU below zero.
const SLOPE: f32 = 0.1;
/// Levels of the trunk that the neck reads: the outputs of the last stages.
const LEVELS: usize = 3;
/// Stride of the finest stage in pixels.
const FIRST_STRIDE: usize = 4;

/// The class names of COCO in the order of the checkpoint.
pub const COCO_CLASSES: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// Sizes of the network, preprocessing and class names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NanoDetConfig {
    /// Side of the input in pixels, a multiple of the coarsest stride.
    pub side: usize,
    /// Whether the aspect ratio is kept by padding; otherwise the picture is stretched to a square.
    pub letterbox: bool,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Channels of the first convolution; a stage has twice the channels of the one before it.
    pub stem: usize,
    /// Residual blocks of each stage.
    pub blocks: Vec<usize>,
    /// Channels of the neck and of the head.
    pub neck: usize,
    /// The largest distance from a center to an edge, in strides.
    pub reg_max: usize,
}

impl NanoDetConfig {
    /// NanoDet-g at 416 pixels for the classes of COCO.
    pub fn nanodet_g() -> Self {
        Self {
            side: 416,
            letterbox: true,
            classes: COCO_CLASSES.map(String::from).to_vec(),
            stem: 32,
            blocks: vec![1, 2, 2, 3],
            neck: 128,
            reg_max: 10,
        }
    }

    /// Preprocessing: normalization of ImageNet.
    pub fn recipe(&self) -> DetectorRecipe {
        DetectorRecipe {
            side: self.side,
            letterbox: self.letterbox,
            multiple: self.strides().last().copied().unwrap_or(1),
            ..DetectorRecipe::NANODET
        }
    }

    /// Pixels per cell of each level, finest first.
    pub fn strides(&self) -> Vec<usize> {
        let stages = self.blocks.len();
        (stages.saturating_sub(LEVELS)..stages)
            .map(|stage| FIRST_STRIDE << stage)
            .collect()
    }

    /// Checks sizes from a file.
    ///
    /// # Errors
    /// Fewer than three stages, a size of zero or out of proportion, an odd number of channels, or a
    /// side that the coarsest stride does not divide. `place` names the file.
    pub fn check(&self, place: &str) -> Result<(), Fault> {
        let stages = (LEVELS..=6).contains(&self.blocks.len());
        let coarsest = self.strides().last().copied().unwrap_or(1);
        let problem = if !stages {
            Some(format!("has {} stages", self.blocks.len()))
        } else if self.blocks.iter().any(|blocks| *blocks > 64) {
            Some(format!("has stages of {:?} blocks", self.blocks))
        } else if self.stem == 0 || self.stem > 1024 || !self.stem.is_multiple_of(2) {
            Some(format!("has {} channels after its stem", self.stem))
        } else if self.neck == 0 || self.neck > 4096 {
            Some(format!("has a neck of {} channels", self.neck))
        } else if self.reg_max == 0 || self.reg_max > 64 {
            Some(format!("has reg_max {}", self.reg_max))
        } else if self.classes.is_empty() || self.classes.len() > 10_000 {
            Some(format!("has {} classes", self.classes.len()))
        } else if !(coarsest..=4096).contains(&self.side) || !self.side.is_multiple_of(coarsest) {
            Some(format!(
                "has a side of {} pixels, which is no multiple of {coarsest} from {coarsest} to 4096",
                self.side
            ))
        } else {
            None
        };
        match problem {
            Some(what) => Err(Fault::model(place, format!("detector: {what}"))),
            None => Ok(()),
        }
    }

    /// Input channels of stage `s`; its output has twice as many.
    fn width(&self, s: usize) -> usize {
        self.stem << s
    }
}

/// A convolution with its folded batch norm and same padding, and a leaky ReLU (`ConvModule`).
#[derive(Module, Debug)]
struct ConvModule {
    conv: Conv2d,
}

impl ConvModule {
    fn load(at: &Loader, inputs: usize, outputs: usize, stride: usize) -> Result<Self, Fault> {
        let size = Conv2dConfig {
            inputs,
            outputs,
            kernel: 3,
            stride,
            padding: 1,
            groups: 1,
        };
        Ok(Self {
            conv: Conv2d::load(&at.child("conv"), size, true)?,
        })
    }

    /// `[B, C, H, W]` to `[B, outputs, H / stride, W / stride]`, rounded up.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.leaky(x, SLOPE)
    }
}

/// A 1 x 1 convolution.
fn pointwise(at: &Loader, inputs: usize, outputs: usize) -> Result<Conv2d, Fault> {
    let size = Conv2dConfig {
        inputs,
        outputs,
        kernel: 1,
        stride: 1,
        padding: 0,
        groups: 1,
    };
    Conv2d::load(at, size, true)
}

/// Two convolutions whose outputs are concatenated (`TinyResBlock`).
#[derive(Module, Debug)]
struct TinyResBlock {
    in_conv: ConvModule,
    mid_conv: ConvModule,
}

impl TinyResBlock {
    fn load(at: &Loader, width: usize) -> Result<Self, Fault> {
        Ok(Self {
            in_conv: ConvModule::load(&at.child("in_conv"), width, width / 2, 1)?,
            mid_conv: ConvModule::load(&at.child("mid_conv"), width / 2, width / 2, 1)?,
        })
    }

    /// `[B, C, H, W]` to the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.in_conv.forward(x);
        let y = self.mid_conv.forward(x.clone());
        Tensor::cat(vec![y, x], 1)
    }
}

/// A cross-stage partial block: the residual blocks' output beside their input (`CspBlock`).
#[derive(Module, Debug)]
struct CspBlock {
    in_conv: ConvModule,
    res_blocks: Vec<TinyResBlock>,
    res_out_conv: ConvModule,
}

impl CspBlock {
    fn load(at: &Loader, width: usize, blocks: usize, stride: usize) -> Result<Self, Fault> {
        let inner = at.child("res_blocks");
        Ok(Self {
            in_conv: ConvModule::load(&at.child("in_conv"), width, width, stride)?,
            res_blocks: (0..blocks)
                .map(|b| TinyResBlock::load(&inner.child(b), width))
                .collect::<Result<_, _>>()?,
            res_out_conv: ConvModule::load(&at.child("res_out_conv"), width, width, 1)?,
        })
    }

    /// `[B, C, H, W]` to `[B, 2 C, H / stride, W / stride]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.in_conv.forward(x);
        let blocks = self.res_blocks.iter();
        let y = blocks.fold(x.clone(), |y, block| block.forward(y));
        Tensor::cat(vec![self.res_out_conv.forward(y), x], 1)
    }
}

/// The trunk (`CustomCspNet`).
#[derive(Module, Debug)]
struct Backbone {
    stem: ConvModule,
    stages: Vec<CspBlock>,
}

impl Backbone {
    /// Reads `stages.0` (the stem) and `stages.2`, `stages.3`, ...; `stages.1` is the max-pool.
    fn load(at: &Loader, config: &NanoDetConfig) -> Result<Self, Fault> {
        let at = at.child("stages");
        let stage = |(s, &blocks): (usize, &usize)| {
            let stride = if s == 0 { 1 } else { 2 };
            CspBlock::load(&at.child(s + 2), config.width(s), blocks, stride)
        };
        Ok(Self {
            stem: ConvModule::load(&at.child(0), 3, config.stem, 2)?,
            stages: config
                .blocks
                .iter()
                .enumerate()
                .map(stage)
                .collect::<Result<_, _>>()?,
        })
    }

    /// `[B, 3, H, W]` to the outputs of the last three stages, finest first.
    fn forward(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = max_pool2d(self.stem.forward(images), 3, 2, 1);
        let mut levels = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            x = stage.forward(x);
            levels.push(x.clone());
        }
        levels.split_off(levels.len() - LEVELS)
    }
}

/// The neck (`PAN`): every level plus the upsampled next coarser one, then plus the downsampled next
/// finer one. Linear: it has no activation functions.
#[derive(Module, Debug)]
struct Pan {
    lateral_convs: Vec<Conv2d>,
}

impl Pan {
    fn load(at: &Loader, config: &NanoDetConfig) -> Result<Self, Fault> {
        let at = at.child("lateral_convs");
        let first = config.blocks.len() - LEVELS;
        let lateral = |level: usize| {
            let at = at.child(level).child("conv");
            pointwise(&at, 2 * config.width(first + level), config.neck)
        };
        Ok(Self {
            lateral_convs: (0..LEVELS).map(lateral).collect::<Result<_, _>>()?,
        })
    }

    /// Levels of any channels to levels of `neck` channels.
    fn forward(&self, levels: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
        let pairs = self.lateral_convs.iter().zip(levels);
        let mut levels: Vec<Tensor<4>> = pairs.map(|(conv, x)| conv.forward(x)).collect();
        for i in (1..LEVELS).rev() {
            let up = doubled(levels[i].clone());
            levels[i - 1] = levels[i - 1].clone() + up;
        }
        for i in 1..LEVELS {
            let down = halved(levels[i - 1].clone());
            levels[i] = levels[i].clone() + down;
        }
        levels
    }
}

/// The head of one level: a 3 x 3 convolution, and a 1 x 1 convolution to classes and distances.
#[derive(Module, Debug)]
struct LevelHead {
    cls_conv: ConvModule,
    gfl_cls: Conv2d,
}

/// Predictions of the network, cells of all levels in one axis, finest level first, row-major.
#[derive(Clone, Debug)]
pub struct DenseOutput {
    /// Class scores after the sigmoid, `[B, A, K]`.
    pub scores: Tensor<3>,
    /// `x1, y1, x2, y2` in pixels of the input, not clipped, `[B, A, 4]`.
    pub boxes: Tensor<3>,
    /// The inputs of the last convolution, `[B, neck, h, w]` per level.
    pub maps: Vec<Tensor<4>>,
}

/// The detector.
#[derive(Module, Debug)]
pub struct NanoDet {
    backbone: Backbone,
    fpn: Pan,
    heads: Vec<LevelHead>,
    #[module(skip)]
    strides: Vec<usize>,
    #[module(skip)]
    classes: usize,
    #[module(skip)]
    bins: usize,
}

impl NanoDet {
    /// Reads `backbone.*`, `fpn.*` and `head.*`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &NanoDetConfig) -> Result<Self, Fault> {
        let head = at.child("head");
        let (classes, bins) = (config.classes.len(), config.reg_max + 1);
        let level = |level: usize| {
            let conv = head.child("cls_convs").child(level).child(0);
            let last = head.child("gfl_cls").child(level);
            Ok(LevelHead {
                cls_conv: ConvModule::load(&conv, config.neck, config.neck, 1)?,
                gfl_cls: pointwise(&last, config.neck, classes + 4 * bins)?,
            })
        };
        Ok(Self {
            backbone: Backbone::load(&at.child("backbone"), config)?,
            fpn: Pan::load(&at.child("fpn"), config)?,
            heads: (0..LEVELS).map(level).collect::<Result<_, _>>()?,
            strides: config.strides(),
            classes,
            bins,
        })
    }

    /// Normalized RGB pixels `[B, 3, H, W]`, both sides multiples of the coarsest stride.
    pub fn forward(&self, images: Tensor<4>) -> DenseOutput {
        let [_, _, height, width] = images.dims();
        let coarsest = self.strides[LEVELS - 1];
        assert!(
            height % coarsest == 0 && width % coarsest == 0 && height > 0 && width > 0,
            "NanoDet: {width} x {height} pixels are no multiples of {coarsest}"
        );
        let levels = self.fpn.forward(self.backbone.forward(images));
        let (mut scores, mut boxes, mut maps) = (Vec::new(), Vec::new(), Vec::new());
        for ((head, level), &stride) in self.heads.iter().zip(levels).zip(&self.strides) {
            let map = head.cls_conv.forward(level);
            let [batch, _, rows, columns] = map.dims();
            let cells = rows * columns;
            let channels = self.classes + 4 * self.bins;
            let predicted = head
                .gfl_cls
                .forward(map.clone())
                .reshape([batch, channels, cells])
                .swap_dims(1, 2); // [B, cells, K + 4 bins]
            scores.push(sigmoid(predicted.clone().narrow(2, 0, self.classes)));
            let distances = predicted.narrow(2, self.classes, 4 * self.bins);
            boxes.push(self.decoded(distances, columns, stride));
            maps.push(map);
        }
        DenseOutput {
            scores: Tensor::cat(scores, 1),
            boxes: Tensor::cat(boxes, 1),
            maps,
        }
    }

    /// Logits of the distances to the left, top, right and bottom edge, `[B, cells, 4 bins]`, to boxes
    /// `[B, cells, 4]`: the mean of each distribution, in strides, from the center of the cell.
    fn decoded(&self, logits: Tensor<3>, columns: usize, stride: usize) -> Tensor<3> {
        let device = logits.device();
        let [batch, cells, _] = logits.dims();
        let bins = (0..self.bins).map(|bin| (bin * stride) as f32).collect();
        let bins = constant(bins, [1, 1, 1, self.bins], &device);
        let shares = softmax(logits.reshape([batch, cells, 4, self.bins]), 3);
        let distances = (shares * bins).sum_dim(3).reshape([batch, cells, 4]);
        let centers = (0..cells)
            .flat_map(|cell| [cell % columns, cell / columns])
            .map(|index| (index as f32 + 0.5) * stride as f32);
        let centers = constant(centers.collect(), [1, cells, 2], &device);
        let first = centers.clone() - distances.clone().narrow(2, 0, 2);
        let second = centers + distances.narrow(2, 2, 2);
        Tensor::cat(vec![first, second], 2)
    }
}

fn constant<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
