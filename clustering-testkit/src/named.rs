//! Enums whose kinds have a name in words.

/// An enum, the list of all its kinds, and the name of each.
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
            /// All of them.
            pub const ALL: [$Enum; [$($name),+].len()] = [$($Enum::$kind,)+];

            /// In words.
            pub const fn name(self) -> &'static str {
                match self {
                    $($Enum::$kind => $name,)+
                }
            }
        }
    };
}

pub(crate) use named;
