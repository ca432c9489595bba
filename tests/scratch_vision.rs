use burn::tensor::{Device, Distribution, Tensor};
use chatrex::fault::Fault;
use chatrex::model::{clip_vit::*, convnext::*};
use chatrex::nn::{Init, Loader, ParameterSource};
use std::time::Instant;
struct R(std::cell::Cell<u64>);
impl ParameterSource for R {
    fn parameter(&self, _n: &str, shape: &[usize], init: &Init) -> Result<Vec<f32>, Fault> {
        let n: usize = shape.iter().product();
        let d = match init {
            Init::Zeros => return Ok(vec![0.; n]),
            Init::Ones => return Ok(vec![1.; n]),
            Init::Constant(c) => return Ok(vec![*c; n]),
            Init::Normal(d) => *d * 1.7,
            Init::Uniform(u) => *u,
            Init::Values(v) => return Ok(v.clone()),
        };
        let mut s = self.0.get();
        let v = (0..n)
            .map(|_| {
                s = s
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                ((s >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * d
            })
            .collect();
        self.0.set(s);
        Ok(v)
    }
}
fn cpu() -> f64 { std::fs::read_dir("/proc/self/task").unwrap().filter_map(|e| std::fs::read_to_string(e.ok()?.path().join("schedstat")).ok()).filter_map(|s| s.split(' ').next()?.parse::<f64>().ok()).sum::<f64>()*1e-6 }
fn time(label:&str, n: usize, mut f: impl FnMut()) { f(); let t=Instant::now(); let c=cpu(); for _ in 0..n { f(); } println!("{label}: {:.1} ms cpu, {:.1} ms wall", (cpu()-c)/n as f64, t.elapsed().as_secs_f64()*1e3/n as f64); }
    f();
    let t = Instant::now();
    for _ in 0..n {
        f();
    }
    println!(
        "{label}: {:.1} ms",
        t.elapsed().as_secs_f64() * 1e3 / n as f64
    );
}
#[test]
fn convnext_speed() {
    let device = Device::flex().autodiff();
    let src = R(std::cell::Cell::new(1));
    let l = Loader::new(&src, &device);
    for dims in [vec![16, 32, 64, 128], vec![24, 48, 96, 160]] {
        let c = ConvNextConfig {
            depths: vec![1, 1, 3, 1],
            dims: dims.clone(),
            kernel: 7,
            patch_size: 4,
            ln_eps: 1e-6,
        };
        let net = ConvNext::load(&l, &c).unwrap();
        let x = Tensor::<4>::random([8, 3, 192, 192], Distribution::Default, &device);
        let f = || {
            let l = net.forward(x.clone());
            l.into_iter()
                .map(|t| t.square().mean())
                .reduce(|a, b| a + b)
                .unwrap()
        };
        time(&format!("{dims:?} forward b8"), 3, || {
            let _ = f().into_data();
        });
        time(&format!("{dims:?} fwd+bwd b8"), 3, || {
            let _ = f().backward();
        });
    }
    let c = ClipVitConfig {
        hidden_size: 96,
        intermediate_size: 384,
        num_hidden_layers: 5,
        num_attention_heads: 4,
        image_size: 84,
        ..ClipVitConfig::large_336()
    };
    let net = ClipVit::load(&l, &c).unwrap();
    let x = Tensor::<4>::random([8, 3, 84, 84], Distribution::Default, &device);
    time("vit fwd+bwd b8", 5, || {
        let _ = net.forward(x.clone()).square().mean().backward();
    });
}
#[test]
fn op_speed() {
    use burn::tensor::activation::gelu;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;
    let d = Device::flex().autodiff();
    let (b, h, c) = (8, 48, 16);
    let rg = |s: [usize; 4]| Tensor::<4>::random(s, Distribution::Default, &d).require_grad();
    let x = rg([b, h, h, c]);
    let w = rg([c, 1, 7, 7]);
    time("dw fwd", 5, || {
        let _ = conv2d(
            x.clone().permute([0, 3, 1, 2]),
            w.clone(),
            None,
            ConvOptions::new([1, 1], [3, 3], [1, 1], c),
        )
        .into_data();
    });
    time("dw f+b", 5, || {
        let _ = conv2d(
            x.clone().permute([0, 3, 1, 2]),
            w.clone(),
            None,
            ConvOptions::new([1, 1], [3, 3], [1, 1], c),
        )
        .sum()
        .backward();
    });
    let g = rg([b, h, h, 4 * c]);
    let bi = Tensor::<1>::zeros([c],&d).require_grad();
    time("our dw fwd", 5, || { let _=chatrex::kernel::depthwise::depthwise_conv(x.clone(), w.clone(), bi.clone()).into_data(); });
    time("our dw f+b", 5, || { let _=chatrex::kernel::depthwise::depthwise_conv(x.clone(), w.clone(), bi.clone()).sum().backward(); });
    time("gelu fwd 4c", 5, || {
        let _ = gelu(g.clone()).into_data();
    });
    time("gelu f+b 4c", 5, || {
        let _ = gelu(g.clone()).sum().backward();
    });
    time("sum f+b 4c", 5, || {
        let _ = g.clone().sum().backward();
    });
    time("mul f+b 4c", 5, || {
        let _ = (g.clone() * g.clone()).sum().backward();
    });
    let src = R(std::cell::Cell::new(1));
    let l = Loader::new(&src, &d);
    let n = chatrex::nn::LayerNorm::load(&l, c, 1e-6).unwrap();
    time("ln fwd", 5, || {
        let _ = n.forward(x.clone()).into_data();
    });
    time("ln f+b", 5, || {
        let _ = n.forward(x.clone()).sum().backward();
    });
    let fc = chatrex::nn::Linear::load(&l, c, 4 * c, true).unwrap();
    time("fc1 fwd", 5, || {
        let _ = fc.forward(x.clone()).into_data();
    });
    time("fc1 f+b", 5, || {
        let _ = fc.forward(x.clone()).sum().backward();
    });
    let fc = chatrex::nn::Linear::load(&l, 4 * c, c, true).unwrap();
    time("fc2 f+b", 5, || {
        let _ = fc.forward(g.clone()).sum().backward();
    });
}
