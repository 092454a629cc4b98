//! Which object is named: the arguments that `suspend` and `resume` share, and `reconcile` in part.
//!
//! What the words mean is said by `words`; here they come from the command line, and where they make
//! no sense that is told.

use super::{Context, Exit, words};

/// One object, in our words or as `flux` has it typed.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; or as flux has it: kustomization NAME, source
    /// git NAME, image repository NAME, image policy NAME, image update NAME
    #[arg(value_name = "NAME", required = true, num_args = 1..=3)]
    names: Vec<String>,
    #[command(flatten)]
    within: Within,
}

impl Named {
    /// The name for the daemon; words that make no sense are told.
    pub fn name(&self, context: &Context) -> Result<String, Exit> {
        let name = self.within.name(&self.names);
        sense(context, name.map(Option::unwrap_or_default))
    }
}

/// The namespace of what is named.
#[derive(Debug, clap::Args)]
pub struct Within {
    /// Its namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl Within {
    /// What the words name in it, for the daemon; nothing where there are none.
    pub fn name(&self, said: &[String]) -> Result<Option<String>, String> {
        words::named(said, self.namespace.as_deref())
    }
}

/// What was made of the words; what is wrong with them is told, and ends the verb.
pub fn sense<T>(context: &Context, made: Result<T, String>) -> Result<T, Exit> {
    made.map_err(|wrong| {
        context.terminal.error(&wrong);
        Exit::Usage
    })
}
