//! The models that are part of the program and of the page.

/// A model that is compiled into the program and served with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    /// A detector of photographs with a small decoder.
    Mini,
    /// A very small ChatRex for drawn scenes.
    Nano,
}

impl BuiltIn {
    /// Those that this version has. The first is the default of program and page.
    pub const SHIPPED: &[Self] = &[Self::Mini, Self::Nano];

    /// Its name: that of its folder in `assets/models` and of `--model`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mini => "mini",
            Self::Nano => "nano",
        }
    }

    /// The shipped model with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::SHIPPED.iter().copied().find(|m| m.name() == name)
    }

    /// The default of program and page.
    pub const fn of_default() -> Self {
        Self::SHIPPED[0]
    }

    /// Whether this version has it.
    pub fn is_shipped(self) -> bool {
        Self::SHIPPED.contains(&self)
    }
}

impl Default for BuiltIn {
    fn default() -> Self {
        Self::of_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders_with_a_manifest() {
        for &model in BuiltIn::SHIPPED {
            assert_eq!(BuiltIn::named(model.name()), Some(model));
            let path = format!("assets/models/{}/model.json", model.name());
            let json = std::fs::read(&path).expect(&path);
            let manifest: serde_json::Value = serde_json::from_slice(&json).expect(&path);
            assert_eq!(manifest["name"], model.name());
        }
        assert_eq!(BuiltIn::named("models/nano"), None);
    }
}
