//! A JSON object and what is asked of it. A fault is reported from the inside
//! out, so each level adds where it stands.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::JsonError;

pub(super) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError::Syntax(error.to_string()))
}

impl JsonError {
    /// A value that is not what it has to be; where, the levels above add.
    pub(super) fn shape(expected: &'static str) -> Self {
        Self::Shape {
            at: String::new(),
            expected,
        }
    }

    fn within(mut self, outer: &str) -> Self {
        if let Self::Shape { at, .. } | Self::Missing { at } = &mut self {
            let separator = match at.bytes().next() {
                None | Some(b'[') => "",
                Some(_) => ".",
            };
            *at = format!("{outer}{separator}{at}");
        }
        self
    }
}

#[derive(Clone, Copy)]
pub(super) struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, JsonError> {
        let map = value.as_object().ok_or(JsonError::shape("an object"))?;
        Ok(Self(map))
    }

    /// What stands under a key; nothing does where `null` stands.
    fn value<T>(
        self,
        key: &str,
        read: impl FnOnce(&'a Value) -> Result<T, JsonError>,
    ) -> Result<Option<T>, JsonError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).map_err(|error| error.within(key)),
        }
    }

    pub(super) fn object<T>(
        self,
        key: &str,
        read: impl FnOnce(Object<'a>) -> Result<T, JsonError>,
    ) -> Result<Option<T>, JsonError> {
        self.value(key, |value| read(Object::of(value)?))
    }

    /// The entries of an array, `None` if there is no array.
    pub(super) fn values<T>(
        self,
        key: &str,
        read: impl Fn(&'a Value) -> Result<T, JsonError>,
    ) -> Result<Option<Vec<T>>, JsonError> {
        self.value(key, |value| {
            let entries = value.as_array().ok_or(JsonError::shape("an array"))?;
            let entries = entries.iter().enumerate();
            entries
                .map(|(i, entry)| read(entry).map_err(|error| error.within(&format!("[{i}]"))))
                .collect()
        })
    }

    /// The objects of an array, none if there is no array.
    pub(super) fn list<T>(
        self,
        key: &str,
        read: impl Fn(Object<'a>) -> Result<T, JsonError>,
    ) -> Result<Vec<T>, JsonError> {
        let list = self.values(key, |value| read(Object::of(value)?))?;
        Ok(list.unwrap_or_default())
    }

    pub(super) fn flag(self, key: &str) -> Result<Option<bool>, JsonError> {
        self.value(key, |value| {
            value.as_bool().ok_or(JsonError::shape("true or false"))
        })
    }

    /// A flag that may also be the word of an XML attribute.
    pub(super) fn flag_or_word(self, key: &str) -> Result<Option<bool>, JsonError> {
        self.value(key, |value| {
            let word = value.as_str().and_then(crate::xml::codec::truth);
            let truth = value.as_bool().or(word);
            truth.ok_or(JsonError::shape("true or false"))
        })
    }

    pub(super) fn text(self, key: &str) -> Result<Option<String>, JsonError> {
        self.value(key, text)
    }

    /// A text that may also be a number.
    pub(super) fn text_or_number(self, key: &str) -> Result<Option<String>, JsonError> {
        self.value(key, |value| match value {
            Value::Number(number) => Ok(number.to_string()),
            value => text(value),
        })
    }

    pub(super) fn required(self, key: &str) -> Result<String, JsonError> {
        let at = || JsonError::Missing { at: key.to_owned() };
        self.text(key)?.ok_or_else(at)
    }

    pub(super) fn number<T: FromStr>(self, key: &str) -> Result<Option<T>, JsonError> {
        self.value(key, number)
    }

    pub(super) fn required_number<T: FromStr>(self, key: &str) -> Result<T, JsonError> {
        let at = || JsonError::Missing { at: key.to_owned() };
        self.number(key)?.ok_or_else(at)
    }

    /// Names and their values, where a value may be a number or a flag.
    pub(super) fn pairs<T>(
        self,
        key: &str,
        pair: impl Fn(&str, String) -> T,
    ) -> Result<Vec<T>, JsonError> {
        let pairs = self.object(key, |Object(map)| {
            let pairs = map.iter().map(|(name, value)| match value {
                Value::Null => Ok(pair(name, String::new())),
                Value::Number(_) | Value::Bool(_) => Ok(pair(name, value.to_string())),
                value => text(value)
                    .map(|value| pair(name, value))
                    .map_err(|error| error.within(name)),
            });
            pairs.collect()
        })?;
        Ok(pairs.unwrap_or_default())
    }
}

pub(super) fn text(value: &Value) -> Result<String, JsonError> {
    let text = value.as_str().ok_or(JsonError::shape("a string"))?;
    Ok(text.to_owned())
}

/// A number of the range of `T`, or a string with one.
pub(super) fn number<T: FromStr>(value: &Value) -> Result<T, JsonError> {
    let number = match value {
        Value::Number(number) => number.to_string().parse().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or(JsonError::shape("a number in range"))
}
