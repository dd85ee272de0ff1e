//! How single values are read and written where XML's own forms do not fit.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use xso::TextCodec;
use xso::error::Error;

/// A value that is treated as absent when it cannot be read.
pub(crate) struct Lax;

impl<T: FromStr + Display> TextCodec<Option<T>> for Lax {
    fn decode(&self, text: String) -> Result<Option<T>, Error> {
        Ok(text.trim().parse().ok())
    }

    fn encode<'x>(&self, value: &'x Option<T>) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(value.as_ref().map(|v| Cow::Owned(v.to_string())))
    }
}

/// `true` and `false` in any case, as Jitsi's programs read them; what is
/// neither is `false`. `false` is not written.
pub(crate) struct Flag;

impl TextCodec<bool> for Flag {
    fn decode(&self, text: String) -> Result<bool, Error> {
        Ok(truth(&text).unwrap_or(false))
    }

    fn encode<'x>(&self, value: &'x bool) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(value.then_some(Cow::Borrowed(word(true))))
    }
}

/// As [`Flag`], for a value whose absence means something else than either.
pub(crate) struct MaybeFlag;

impl TextCodec<Option<bool>> for MaybeFlag {
    fn decode(&self, text: String) -> Result<Option<bool>, Error> {
        Ok(truth(&text))
    }

    fn encode<'x>(&self, value: &'x Option<bool>) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(value.map(|v| Cow::Borrowed(word(v))))
    }
}

/// Reads `true` or `false` in any case, and the digits of XML Schema.
pub(crate) fn truth(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") || text == "1" {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") || text == "0" {
        Some(false)
    } else {
        None
    }
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Defines an enum of words, with `Other` for those not known here, so that a
/// new word of a newer peer neither fails a stanza nor gets lost.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// A word not known here, as it was read.
            Other(String),
        }

        impl $name {
            /// The word as it stands in XML.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl xso::FromXmlText for $name {
            fn from_xml_text(word: String) -> Result<Self, xso::error::Error> {
                Ok(Self::from(word.as_str()))
            }
        }

        impl xso::AsXmlText for $name {
            fn as_xml_text(&self) -> Result<std::borrow::Cow<'_, str>, xso::error::Error> {
                Ok(std::borrow::Cow::Borrowed(self.as_str()))
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_has_several_spellings() {
        for (text, value) in [
            ("true", Some(true)),
            ("TRUE", Some(true)),
            ("True ", Some(true)),
            ("1", Some(true)),
            ("false", Some(false)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("", None),
            ("yes", None),
        ] {
            assert_eq!(truth(text), value, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let read = |text: &str| -> Option<u16> {
            Lax.decode(text.to_owned())
                .expect("reading laxly does not fail")
        };
        assert_eq!(read(" 17 "), Some(17));
        assert_eq!(read("65536"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn a_flag_is_written_only_when_set() {
        assert_eq!(Flag.encode(&false).expect("writable"), None);
        assert_eq!(
            Flag.encode(&true).expect("writable").as_deref(),
            Some("true")
        );
        assert!(!Flag.decode("odd".to_owned()).expect("readable"));
        let maybe = |value| {
            MaybeFlag
                .encode(value)
                .expect("writable")
                .map(Cow::into_owned)
        };
        assert_eq!(maybe(&None), None);
        assert_eq!(maybe(&Some(false)).as_deref(), Some("false"));
    }
}
