//! The server's steps. Each is atomic, and checks the owner itself (rule R3).

use crate::line::{Desk, Line, Turn};
use crate::setup::{Fault, Setup, Tokens};
use crate::state::Owner;
use crate::{CLAIM, DRIFT, GRACE, TTL};

/// A server, or what a replica has of one: the lock's key, its fence, and its line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The lock's key, while it is there.
    pub holder: Option<Holder>,
    /// The last token that was drawn here.
    pub counter: u8,
    /// By how much its clock is behind.
    pub behind: u8,
    /// Who waits.
    pub line: Line,
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
    /// It was handed the lock unasked, and nothing was heard of it since.
    pub claim: bool,
}

/// A lock that was given: its token, and the number of the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) owner: Owner,
    pub(crate) token: u8,
    pub(crate) grant: u8,
}

/// What an acquire is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is yours.
    Granted(Given),
    /// You stand in line, or, who does not wait: busy.
    NotNow,
}

impl Server {
    /// Takes a lock that is free, or that the same owner id holds already. One that waits
    /// is put in line if it is not its turn. Says, too, who was handed the lock by this.
    pub(crate) fn acquire(
        &mut self,
        owner: Owner,
        waits: bool,
        desk: &mut Desk<'_>,
    ) -> (Reply, Option<Given>) {
        match &mut self.holder {
            Some(holder) if holder.owner == owner => {
                holder.refresh();
                let given = holder.given();
                self.line.leave(owner);
                return (Reply::Granted(given), None);
            }
            Some(_) if waits => self.line.enter(owner, desk.setup),
            Some(_) => {}
            None => return self.acquire_free(owner, waits, desk),
        }
        (Reply::NotNow, None)
    }

    fn acquire_free(
        &mut self,
        owner: Owner,
        waits: bool,
        desk: &mut Desk<'_>,
    ) -> (Reply, Option<Given>) {
        if waits {
            self.line.enter(owner, desk.setup);
        }
        let jumps = !waits && desk.setup.has(Fault::TryJumpsTheLine);
        match self.line.turn(Some(owner), desk) {
            Turn::Waiter(next) if !jumps => (Reply::NotNow, Some(self.hand(next, desk))),
            Turn::Asker { passes_over: true } if self.line.has_patience(desk.setup) => {
                self.line.patience.get_or_insert(0);
                (Reply::NotNow, None)
            }
            _ => {
                self.line.leave(owner);
                (Reply::Granted(self.give(owner, TTL, desk)), None)
            }
        }
    }

    /// The lock goes to the waiter whose turn it is, for as long as a claim lasts.
    fn hand(&mut self, owner: Owner, desk: &mut Desk<'_>) -> Given {
        self.line.hand(owner, desk.setup);
        let given = self.give(owner, CLAIM, desk);
        if let Some(holder) = &mut self.holder {
            holder.claim = true;
        }
        given
    }

    /// Draws the token before it sets the lock.
    fn give(&mut self, owner: Owner, left: u8, desk: &mut Desk<'_>) -> Given {
        let token = self.draw(desk.tokens.len(), desk.setup.tokens);
        desk.tokens.push(token);
        self.line.patience = None;
        let holder = Holder {
            owner,
            token,
            grant: count(desk.tokens.len()),
            left,
            ahead: 0,
            claim: false,
        };
        self.holder.insert(holder).given()
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

    /// Sets the lease back to the ttl, if that owner id holds it. A claim is a full lease
    /// from then on.
    pub(crate) fn renew(&mut self, owner: Owner) -> bool {
        match &mut self.holder {
            Some(holder) if holder.owner == owner => {
                holder.refresh();
                self.line.leave(owner);
                true
            }
            _ => false,
        }
    }

    /// Gives the lock back, if that owner id holds it (rule R7), and its place in the line.
    /// Says who was handed the lock.
    pub(crate) fn release(&mut self, owner: Owner, desk: &mut Desk<'_>) -> Option<Given> {
        self.line.leave(owner);
        let holder = self
            .holder
            .as_ref()
            .filter(|one| one.owner == owner || desk.setup.has(Fault::UnconditionalDelete))?;
        if holder.claim && desk.setup.has(Fault::LeaveKeepsTheClaim) {
            return None;
        }
        self.force(desk)
    }

    /// Takes the lock from whoever has it. Says who was handed it.
    pub(crate) fn force(&mut self, desk: &mut Desk<'_>) -> Option<Given> {
        self.free();
        if desk.setup.has(Fault::ReleaseHandsNothingOn) {
            return None;
        }
        match self.line.turn(None, desk) {
            Turn::Waiter(next) => Some(self.hand(next, desk)),
            _ => None,
        }
    }

    /// The lock comes free: released, expired or gone. The one place where it does.
    pub(crate) fn free(&mut self) {
        self.holder = None;
    }

    /// A tick of its clock. A lock that expires is free; nobody is told, and nobody is
    /// handed it before the next knock.
    pub(crate) fn tick(&mut self, setup: &Setup) {
        if let Some(passed) = &mut self.line.patience {
            *passed = (*passed + 1).min(GRACE);
        }
        if let Some(holder) = &mut self.holder {
            if holder.claim && setup.has(Fault::ClaimWithoutExpiry) {
                return;
            }
            holder.left -= 1;
            if holder.left == 0 {
                self.free();
            }
        }
    }

    /// A tick of its clock alone, if it may run ahead by one more: whether it could.
    pub(crate) fn run_ahead(&mut self, setup: &Setup) -> bool {
        match &mut self.holder {
            Some(holder) if holder.ahead < DRIFT => {
                holder.ahead += 1;
                self.tick(setup);
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
        self.claim = false;
    }

    fn given(&self) -> Given {
        Given {
            owner: self.owner,
            token: self.token,
            grant: self.grant,
        }
    }
}

/// A number of grants: there are a handful.
fn count(grants: usize) -> u8 {
    u8::try_from(grants).unwrap_or(u8::MAX)
}
