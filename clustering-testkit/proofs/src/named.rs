//! Enums with a name for each variant.

/// Defines an enum with a list of all variants and a method that returns a variant's name.
macro_rules! named {
    (
        $(#[$about:meta])+
        pub enum $Enum:ident {
            $($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)+
        }
    ) => {
        $(#[$about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Enum {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl $Enum {
            /// All variants.
            pub const ALL: [$Enum; [$($name),+].len()] = [$($Enum::$kind,)+];

            /// Returns the variant's name in words.
            pub const fn name(self) -> &'static str {
                match self {
                    $($Enum::$kind => $name,)+
                }
            }
        }
    };
}

pub(crate) use named;
