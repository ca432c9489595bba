//! Where the tokens of an answer come from: the graphics device chooses them itself and runs ahead
//! of whoever reads them; elsewhere they are chosen from logits.
//!
//! After a few tokens what the device does for one is recorded and from then on replayed, so that a
//! token costs the host next to nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::{Tensor, TensorData};

use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampler;
use crate::gpu::graph::CapturedGraph;
use crate::gpu::sampling::{GpuSampler, SamplingConfig};
use crate::model::decoder::{Decoder, KvCache};
use crate::model::upn;

/// Tokens computed before the first of them is read: while one is on its way, the device is busy
/// with the next.
const PIPELINE_DEPTH: usize = 2;

/// Tokens that are launched one by one before the work for one is recorded: a short answer is done
/// before a recording pays.
const CAPTURE_AFTER: usize = 4;

/// Tokens after some logits.
pub(crate) enum TokenStream<'a> {
    /// Chosen here.
    Cpu(Box<CpuSampling<'a>>),
    /// Chosen on the device.
    Gpu(Box<GpuPipelined<'a>>),
}

/// Tokens chosen from logits that are read.
pub(crate) struct CpuSampling<'a> {
    llm: &'a Decoder,
    cache: &'a mut KvCache,
    sampler: Sampler,
    next: Next,
}

/// Tokens chosen where they are computed.
pub(crate) struct GpuPipelined<'a> {
    llm: &'a Decoder,
    cache: &'a mut KvCache,
    sampler: GpuSampler,
    /// Under way, the first of the next token.
    reads: VecDeque<Read>,
    /// Tokens chosen so far.
    chosen: usize,
    /// Tokens handed out so far.
    taken: usize,
    /// At most so many are chosen.
    limit: usize,
    steps: Steps,
}

/// How the device is told to compute a token.
enum Steps {
    /// Launch by launch, for good where the device records nothing.
    Launched { recordable: bool },
    /// By replaying what was recorded.
    Captured(CapturedGraph),
}

/// What the next token is chosen from.
pub(crate) enum Next {
    /// These logits.
    Logits(Box<Tensor<1>>),
    /// Those that follow this token.
    After(u32),
}

impl<'a> TokenStream<'a> {
    /// At most `limit` tokens after `logits`, chosen by `rule`.
    pub fn new(
        llm: &'a Decoder,
        cache: &'a mut KvCache,
        logits: Tensor<1>,
        rule: SamplingConfig,
        limit: usize,
    ) -> Self {
        if limit == 0 || !llm.can_advance(cache) {
            return Self::Cpu(Box::new(CpuSampling {
                llm,
                cache,
                sampler: Sampler::new(rule.sampling, rule.penalty, rule.grammar),
                next: Next::Logits(Box::new(logits)),
            }));
        }
        let vocabulary = llm.config().vocab_size;
        let sampler = GpuSampler::new(vocabulary, rule, limit, cache.len(), &logits.device());
        sampler.sample(logits);
        Self::Gpu(Box::new(GpuPipelined {
            reads: VecDeque::from([Read::begin(&sampler)]),
            llm,
            cache,
            sampler,
            chosen: 1,
            taken: 0,
            limit,
            steps: Steps::Launched { recordable: true },
        }))
    }

    /// The next token.
    ///
    /// # Errors
    /// The device fails, or computed something that is no number.
    ///
    /// # Panics
    /// More than `limit` tokens are asked for.
    pub async fn next(&mut self) -> Result<u32, Fault> {
        match self {
            Self::Cpu(host) => host.next().await,
            Self::Gpu(device) => device.next().await,
        }
    }

    /// Waits for what is still being read: a read that is given up leaves its buffer mapped, and the
    /// next one that uses it fails.
    pub async fn finish(&mut self) {
        if let Self::Gpu(device) = self {
            device.finish().await;
        }
    }
}

impl CpuSampling<'_> {
    async fn next(&mut self) -> Result<u32, Fault> {
        let logits = match std::mem::replace(&mut self.next, Next::After(0)) {
            Next::Logits(logits) => *logits,
            Next::After(token) => self.llm.step(token, self.cache),
        };
        let row = upn::read(logits).await?;
        if row.iter().any(|value| value.is_nan()) {
            return Err(not_finite());
        }
        let token = self.sampler.sample(&row);
        self.next = Next::After(token);
        Ok(token)
    }
}

impl GpuPipelined<'_> {
    async fn next(&mut self) -> Result<u32, Fault> {
        while self.chosen < (self.taken + PIPELINE_DEPTH).min(self.limit) {
            self.step().await?;
            self.reads.push_back(Read::begin(&self.sampler));
            self.chosen += 1;
        }
        let read = self.reads.pop_front();
        let said = read.expect("a token within the limit").end().await?;
        let token = said.get(self.taken).copied().unwrap_or_default();
        self.taken += 1;
        if token as usize >= self.llm.config().vocab_size {
            self.finish().await;
            return Err(not_finite());
        }
        Ok(token)
    }

    /// Computes one more token.
    async fn step(&mut self) -> Result<(), Fault> {
        match &self.steps {
            Steps::Launched { recordable } if *recordable && self.chosen == CAPTURE_AFTER => {
                let device = self.sampler.token().device();
                self.cache.grow();
                let work = || self.llm.launch(&self.sampler, self.cache);
                let recorded = CapturedGraph::of(&device, work).await;
                self.steps = match recorded {
                    Some(recording) => Steps::Captured(recording),
                    None => Steps::Launched { recordable: false },
                };
                Ok(())
            }
            Steps::Launched { .. } => {
                self.llm.advance(&self.sampler, self.cache);
                Ok(())
            }
            Steps::Captured(recording) => {
                self.cache.grow();
                recording.replay()
            }
        }
    }

    async fn finish(&mut self) {
        for read in self.reads.drain(..) {
            // Whatever it holds comes after the answer's end.
            let _ = read.end().await;
        }
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<TensorData, Fault>>>>;

/// All tokens chosen so far, on their way from the device.
pub(crate) enum Read {
    /// Not here yet.
    Waiting(Reading),
    /// Here.
    Done(Result<TensorData, Fault>),
}

impl Read {
    /// Asks for the tokens as they are now: what the device is told later comes after.
    fn begin(sampler: &GpuSampler) -> Self {
        let said = sampler.output_ids();
        let mut reading: Reading = Box::pin(async move {
            let data = said.into_data_async().await;
            data.map_err(|error| unread(&format!("{error:?}")))
        });
        let mut nobody = Context::from_waker(Waker::noop());
        match reading.as_mut().poll(&mut nobody) {
            Poll::Ready(data) => Self::Done(data),
            Poll::Pending => Self::Waiting(reading),
        }
    }

    async fn end(self) -> Result<Vec<u32>, Fault> {
        let data = match self {
            Self::Waiting(reading) => reading.await?,
            Self::Done(data) => data?,
        };
        let ids: Vec<i32> = data
            .try_to_vec()
            .map_err(|error| unread(&format!("{error:?}")))?;
        Ok(ids.into_iter().map(i32::cast_unsigned).collect())
    }
}

fn unread(error: &str) -> Fault {
    Fault::new(
        FaultKind::Device,
        "graphics device",
        format!("the chosen tokens could not be read: {error}"),
        "Reload the model, or use another device",
    )
}

/// The fault of a model that computed something that is no number.
pub(crate) fn not_finite() -> Fault {
    Fault::new(
        FaultKind::Device,
        "graphics device",
        "the model computed values that are not numbers",
        "Reload the model, or use another device",
    )
}
