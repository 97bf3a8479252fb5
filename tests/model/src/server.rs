//! The server's steps. Each is atomic, and checks the owner itself (rule R3).

use crate::setup::{Fault, Setup, Tokens};
use crate::state::Owner;
use crate::{DRIFT, TTL};

/// A server, or what a replica has of one: the lock's key and its fence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The lock's key, while it is there.
    pub holder: Option<Holder>,
    /// The last token that was drawn here.
    pub counter: u8,
    /// By how much its clock is behind.
    pub behind: u8,
}

/// Who has the lock, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The owner id.
    pub owner: Owner,
    /// The fencing token.
    pub token: u8,
    /// Which grant it was. The server does not know this.
    pub grant: u8,
    /// Ticks until the key expires.
    pub left: u8,
    /// How far the server's clock ran ahead since the ttl was last set.
    pub ahead: u8,
}

impl Server {
    /// Takes a lock that is free, or that the same owner id holds already: with the token
    /// and the number of the grant. Draws the token before it sets the lock.
    pub(crate) fn acquire(
        &mut self,
        owner: Owner,
        tokens: &mut Vec<u8>,
        setup: &Setup,
    ) -> Option<(u8, u8)> {
        match &mut self.holder {
            Some(holder) if holder.owner == owner => {
                holder.refresh();
                Some((holder.token, holder.grant))
            }
            Some(_) => None,
            None => {
                let token = self.draw(tokens.len(), setup.tokens);
                tokens.push(token);
                let grant = count(tokens.len());
                self.holder = Some(Holder {
                    owner,
                    token,
                    grant,
                    left: TTL,
                    ahead: 0,
                });
                Some((token, grant))
            }
        }
    }

    /// The larger of the last token plus one and the clock (rule R8). The clock moves on
    /// with each grant that was ever made.
    fn draw(&mut self, grants: usize, tokens: Tokens) -> u8 {
        let next = self.counter + 1;
        let clock = (count(grants) + 1).saturating_sub(self.behind);
        self.counter = match tokens {
            Tokens::Counter => next,
            Tokens::Hybrid => next.max(clock),
        };
        self.counter
    }

    /// Sets the lease back to the ttl, if that owner id holds it.
    pub(crate) fn renew(&mut self, owner: Owner) -> bool {
        match &mut self.holder {
            Some(holder) if holder.owner == owner => {
                holder.refresh();
                true
            }
            _ => false,
        }
    }

    /// Gives the lock back, if that owner id holds it (rule R7).
    pub(crate) fn release(&mut self, owner: Owner, setup: &Setup) {
        let held = self.holder.as_ref().map(|holder| holder.owner);
        if held == Some(owner) || setup.has(Fault::UnconditionalDelete) {
            self.free();
        }
    }

    /// The lock comes free: released, expired or gone. The one place where it does.
    pub fn free(&mut self) {
        self.holder = None;
    }

    /// A tick of its clock.
    pub fn tick(&mut self) {
        if let Some(holder) = &mut self.holder {
            holder.left -= 1;
            if holder.left == 0 {
                self.free();
            }
        }
    }

    /// A tick of its clock alone, if it may run ahead by one more: whether it could.
    pub(crate) fn run_ahead(&mut self) -> bool {
        match &mut self.holder {
            Some(holder) if holder.ahead < DRIFT => {
                holder.ahead += 1;
                self.tick();
                true
            }
            _ => false,
        }
    }
}

impl Holder {
    fn refresh(&mut self) {
        self.left = TTL;
        self.ahead = 0;
    }
}

/// A number of grants: there are a handful.
fn count(grants: usize) -> u8 {
    u8::try_from(grants).unwrap_or(u8::MAX)
}
