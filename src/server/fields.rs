//! Fields of a JSON request, read one by one so that an error names the field.

use serde_json::{Map, Value};

use super::problem::Problem;

/// An object of a request and its path.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    place: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The object `value` at the path `place`, which is empty for the whole body.
    ///
    /// # Errors
    /// It is something else.
    pub fn of(value: &'a Value, place: &str) -> Result<Self, Problem> {
        let fields = value.as_object().ok_or_else(|| {
            let place = if place.is_empty() { "body" } else { place };
            Problem::field(place, format!("{place} is not an object"))
        })?;
        Ok(Self {
            place: place.to_owned(),
            fields,
        })
    }

    /// The path of a field.
    pub fn place(&self, name: &str) -> String {
        if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.place)
        }
    }

    /// A field; null counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Refuses the field `name`.
    pub fn wrong(&self, name: &str, what: &str) -> Problem {
        let place = self.place(name);
        Problem::field(place.clone(), format!("{place} {what}"))
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let value = self
            .get(name)
            .map(|value| read(value).ok_or_else(|| self.wrong(name, &format!("is not {what}"))));
        value.transpose()
    }

    /// A text.
    ///
    /// # Errors
    /// The field is something else; likewise below.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        self.read(name, Value::as_str, "a string")
    }

    /// True or false.
    ///
    /// # Errors
    /// See [`Object::text`].
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, Value::as_bool, "true or false")
    }

    /// A number.
    ///
    /// # Errors
    /// See [`Object::text`].
    pub fn number(&self, name: &str) -> Result<Option<f64>, Problem> {
        self.read(name, Value::as_f64, "a number")
    }

    /// A whole number.
    ///
    /// # Errors
    /// See [`Object::text`].
    pub fn whole(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.read(name, Value::as_i64, "a whole number")
    }

    /// A list.
    ///
    /// # Errors
    /// See [`Object::text`].
    pub fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Problem> {
        self.read(name, Value::as_array, "a list")
    }

    /// An object.
    ///
    /// # Errors
    /// See [`Object::text`].
    pub fn object(&self, name: &str) -> Result<Option<Object<'a>>, Problem> {
        let value = self.get(name);
        value
            .map(|value| Self::of(value, &self.place(name)))
            .transpose()
    }

    /// Refuses fields other than `names`.
    ///
    /// # Errors
    /// There is another field.
    pub fn only(&self, names: &[&str]) -> Result<(), Problem> {
        let other = self.fields.keys().find(|key| !names.contains(&&***key));
        match other {
            Some(other) => Err(self.wrong(
                other,
                &format!("is not known; known are {}", names.join(", ")),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_by_kind_and_named_in_errors() {
        let value = json!({"a": "x", "b": null, "c": {"d": 3, "e": 0.5}});
        let object = Object::of(&value, "").expect("an object");
        assert_eq!(object.text("a").expect("a text"), Some("x"));
        assert_eq!(object.text("b").expect("absent"), None);
        let inner = object.object("c").expect("an object").expect("there");
        assert_eq!(inner.whole("d").expect("a number"), Some(3));
        assert_eq!(inner.number("e").expect("a number"), Some(0.5));
        let wrong = inner.whole("e").expect_err("half");
        assert_eq!(wrong.param.as_deref(), Some("c.e"));
        assert_eq!(wrong.message, "c.e is not a whole number");
        assert!(object.flag("a").is_err() && object.list("c").is_err());
        assert!(inner.only(&["d", "e"]).is_ok());
        let other = inner.only(&["d"]).expect_err("e");
        assert_eq!(other.param.as_deref(), Some("c.e"));
        assert!(Object::of(&json!(3), "").is_err());
    }
}
