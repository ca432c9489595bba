//! Licence notices that converted weights must include.

use crate::weights::manifest::{Licence, PartLicence};

/// The notice for weights of ChatRex, RexSeek and UPN; `llama` if the decoder derives from Vicuna.
pub fn idea(llama: bool) -> Licence {
    let mut text =
        "ChatRex, RexSeek and UPN are licensed under the IDEA License 1.0, Copyright (c) \
        IDEA (International Digital Economy Academy). All Rights Reserved.\n\n\
        The IDEA License 1.0 allows use, reproduction and distribution solely for non-commercial \
        research purposes. Anyone who passes these weights on, converted or not, must include a \
        copy of that licence and this notice. The full text of the licence \
        comes with the original checkpoints; it applies, and this summary does not replace it."
            .to_string();
    if llama {
        text.push_str(
            "\n\nThe language model derives from Vicuna-7B and thereby from Llama 2. Llama 2 is \
             licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All \
             Rights Reserved.",
        );
    }
    Licence {
        name: if llama {
            "IDEA License 1.0 (non-commercial research) and LLAMA 2 Community License".into()
        } else {
            "IDEA License 1.0 (non-commercial research)".into()
        },
        text,
        parts: Vec::new(),
    }
}

/// The licence of NanoDet-g; `source` says where its weights come from.
pub fn nanodet(source: &str) -> PartLicence {
    PartLicence {
        part: "detector".into(),
        name: "Apache-2.0".into(),
        text: format!(
            "NanoDet-g, Copyright 2020-2021 RangiLyu. Licensed under the Apache License, Version 2.0. \
             Changes: the weights were converted to another file format, with batch norms folded into the \
             convolutions, and stored as f16.\n\n{}",
            include_str!("../../LICENSE-APACHE")
        ),
        source: source.into(),
    }
}
