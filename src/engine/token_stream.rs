//! Token generation: an asynchronous iterator over the tokens of an answer.
//!
//! [`TokenStream::new`] takes the logits of the prompt; every call of [`TokenStream::next`] gives
//! one token. There are two ways to compute it:
//!
//! - [`CpuSampling`], where kernels do not run the decoder: read the logits back, sample on the CPU,
//!   run one decode step, repeat.
//! - [`GpuPipelined`]: the GPU samples and feeds its own output, so decoding is pipelined ahead of
//!   readback:
//!   1. sample the first token from the logits of the prompt and start its readback;
//!   2. launch decode steps until [`PIPELINE_DEPTH`] tokens are computed and not yet returned, and
//!      start a readback after each;
//!   3. wait for the oldest readback and return its token; continue with 2.
//!
//!   The launches of a decode step do not depend on the token. After [`CAPTURE_AFTER`] tokens they
//!   are captured as a graph, and from then on replayed: a step then costs the CPU almost nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::Tensor;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::sampling::Sampler;
use crate::gpu::graph::CapturedGraph;
use crate::gpu::readback;
use crate::gpu::sampling::{GpuSampler, SamplingConfig};
use crate::model::decoder::{Decoder, KvCache};

/// Tokens computed ahead of readback: while one is transferred, the GPU computes the next.
const PIPELINE_DEPTH: usize = 2;

/// Decode steps launched kernel by kernel before one is captured; for a shorter answer a capture
/// does not pay.
const CAPTURE_AFTER: usize = 4;

/// The tokens of one answer.
pub(crate) enum TokenStream<'a> {
    /// Sampled on the CPU.
    Cpu(Box<CpuSampling<'a>>),
    /// Sampled on the GPU.
    Gpu(Box<GpuPipelined<'a>>),
}

impl<'a> TokenStream<'a> {
    /// At most `limit` tokens that follow `logits` `[V]`, the logits of the last token in `cache`.
    pub fn new(
        llm: &'a Decoder,
        cache: &'a mut KvCache,
        logits: Tensor<1>,
        config: SamplingConfig,
        limit: usize,
    ) -> Self {
        if limit > 0 && llm.can_advance(cache) {
            let pipelined = GpuPipelined::new(llm, cache, logits, config, limit);
            return Self::Gpu(Box::new(pipelined));
        }
        Self::Cpu(Box::new(CpuSampling {
            llm,
            cache,
            sampler: Sampler::new(config.sampling, config.penalty, config.grammar),
            next: Next::SampleFrom(Box::new(logits)),
            remaining: limit,
        }))
    }

    /// The next token; `None` after `limit` tokens. The stream does not know end tokens.
    ///
    /// # Errors
    /// The device fails, or the logits contain NaN.
    pub async fn next(&mut self) -> Result<Option<u32>, Fault> {
        match self {
            Self::Cpu(stream) => stream.next().await,
            Self::Gpu(stream) => stream.next().await,
        }
    }

    /// Waits for pending readbacks. Must be called at the end: the staging buffer of an abandoned
    /// readback stays mapped, and the next readback into it fails.
    pub async fn finish(&mut self) {
        if let Self::Gpu(stream) = self {
            stream.finish().await;
        }
    }
}

/// Samples on the CPU from logits that are read back.
pub(crate) struct CpuSampling<'a> {
    llm: &'a Decoder,
    cache: &'a mut KvCache,
    sampler: Sampler,
    next: Next,
    /// Tokens until the limit.
    remaining: usize,
}

/// Where the logits of the next token come from.
enum Next {
    /// From the prompt, `[V]`.
    SampleFrom(Box<Tensor<1>>),
    /// From a decode step with this token.
    StepWith(u32),
}

impl CpuSampling<'_> {
    async fn next(&mut self) -> Result<Option<u32>, Fault> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let logits = match &self.next {
            Next::SampleFrom(logits) => (**logits).clone(),
            Next::StepWith(token) => self.llm.step(*token, self.cache),
        };
        let logits = readback::read("the logits of the next token", logits).await?;
        if logits.iter().any(|value| value.is_nan()) {
            return Err(not_finite());
        }
        let token = self.sampler.sample(&logits);
        self.next = Next::StepWith(token);
        self.remaining -= 1;
        Ok(Some(token))
    }
}

/// Samples on the GPU, pipelined ahead of readback.
pub(crate) struct GpuPipelined<'a> {
    llm: &'a Decoder,
    cache: &'a mut KvCache,
    sampler: GpuSampler,
    /// Readbacks under way; the first one contains the next token.
    readbacks: VecDeque<Readback>,
    /// Tokens computed, or being computed.
    computed: usize,
    /// Tokens returned.
    returned: usize,
    limit: usize,
    steps: Steps,
}

/// How decode steps are submitted.
enum Steps {
    /// Kernel by kernel.
    Launched {
        /// False once the device has turned out not to capture graphs.
        capturable: bool,
    },
    /// By replaying a captured graph.
    Captured(CapturedGraph),
}

impl<'a> GpuPipelined<'a> {
    fn new(
        llm: &'a Decoder,
        cache: &'a mut KvCache,
        logits: Tensor<1>,
        config: SamplingConfig,
        limit: usize,
    ) -> Self {
        let vocabulary = llm.config().vocab_size;
        let sampler = GpuSampler::new(vocabulary, config, limit, cache.len(), &logits.device());
        sampler.sample(logits);
        Self {
            readbacks: VecDeque::from([Readback::start(&sampler)]),
            llm,
            cache,
            sampler,
            computed: 1,
            returned: 0,
            limit,
            steps: Steps::Launched { capturable: true },
        }
    }

    async fn next(&mut self) -> Result<Option<u32>, Fault> {
        while self.computed < (self.returned + PIPELINE_DEPTH).min(self.limit) {
            self.step().await?;
            self.readbacks.push_back(Readback::start(&self.sampler));
            self.computed += 1;
        }
        let Some(readback) = self.readbacks.pop_front() else {
            return Ok(None);
        };
        let ids = readback.wait().await?;
        let token = ids.get(self.returned).copied().unwrap_or_default();
        self.returned += 1;
        // The sampler marks NaN among the logits by an id beyond the vocabulary.
        if token as usize >= self.llm.config().vocab_size {
            self.finish().await;
            return Err(not_finite());
        }
        Ok(Some(token))
    }

    /// Submits one decode step.
    async fn step(&mut self) -> Result<(), Fault> {
        match &self.steps {
            Steps::Launched { capturable: true } if self.computed == CAPTURE_AFTER => {
                let device = self.sampler.token().device();
                self.cache.grow();
                let launch = || self.llm.launch(&self.sampler, self.cache);
                self.steps = match CapturedGraph::of(&device, launch).await {
                    Some(graph) => Steps::Captured(graph),
                    None => Steps::Launched { capturable: false },
                };
                Ok(())
            }
            Steps::Launched { .. } => {
                self.llm.advance(&self.sampler, self.cache);
                Ok(())
            }
            Steps::Captured(graph) => {
                self.cache.grow();
                graph.replay()
            }
        }
    }

    async fn finish(&mut self) {
        for readback in self.readbacks.drain(..) {
            // Its tokens come after the end of the answer; errors do not matter any more.
            let _ = readback.wait().await;
        }
    }
}

type IdsFuture = Pin<Box<dyn Future<Output = Result<Vec<u32>, Fault>>>>;

/// A readback of all tokens sampled so far.
enum Readback {
    Pending(IdsFuture),
    Ready(Result<Vec<u32>, Fault>),
}

impl Readback {
    /// Starts to read the tokens as they are now: work submitted later does not change them.
    fn start(sampler: &GpuSampler) -> Self {
        let ids = sampler.output_ids();
        let mut future: IdsFuture = Box::pin(readback::read_ids("the sampled tokens", ids));
        // The first poll submits the copy.
        let mut context = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Ready(ids) => Self::Ready(ids),
            Poll::Pending => Self::Pending(future),
        }
    }

    async fn wait(self) -> Result<Vec<u32>, Fault> {
        match self {
            Self::Pending(future) => future.await,
            Self::Ready(ids) => ids,
        }
    }
}

/// The fault of a model whose outputs are not finite numbers.
pub(crate) fn not_finite() -> Fault {
    Fault::new(
        FaultKind::Device,
        "model",
        "computed NaN or infinite values",
        "Reload the model, or use another device",
    )
    .code(ErrorCode::WrongResult)
}
