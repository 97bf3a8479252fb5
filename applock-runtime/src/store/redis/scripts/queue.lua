-- What the scripts that change a lock need where a request waits, or where anything is not as
-- usual. This text stands after clock.lua and before `acquire`, `release` and `force_release`; it
-- takes and answers nothing by itself.
--
-- These are the decisions of the runtime's module `protocol/`, in Lua: a test compares the two,
-- random step by random step. Change a rule there first. What belongs to one request alone is
-- in the script of that request.
--
-- A lock is one string, a line of JSON for people to read, and its expiry is the lease:
--   {"applock":1,"state":"held",     "owner":"<32 hex digits>","ttl":ms,"remember":ms,...,
--    "token":T}
-- 1 is the version of the layout. The token is the server's clock in microseconds, and so tells since
-- when the lock is held. Where it had to be larger than the clock, that stands after it:
-- `"token":T,"acquired_at":ms}`. `remember` is left out where it is a week, `instance` where it is the
-- beginning of the owner id. The state is one of:
--   held       its holder keeps it alive, and no request waits for it
--   awaited    the same, and requests wait, or may: they have put that there before they queued.
--              Or the holding is remembered longer than its request says: see `holding_of`
--   claimed    granted to a waiter that has not confirmed it: the lease is the ttl, or 3 s if that
--              is shorter
--   kept       given back, and kept by at_least for the ttl: no owner holds it
-- The fence is the text of the newest holding, `held` while that lasts, and then how it ended:
--   released, ok, error, panicked, cancelled, lost, unused, as its holder says; or forced
-- and up to two lines more, each only if there is something to say:
--   {"noted_at":microseconds,"left":ms,"applock":1,"state":"ok",...}   the newest before it that was
--                           `ok`: when its fence was replaced, and how long that had to live still
--   {"remember":ms,"tick":N,"token":T}     after a holding that was once per tick: for how long the
--                           last of them is remembered; the last tick that was begun, if it has a
--                           number, and the token of its run (after an empty line if there is no line
--                           before)
-- It expires `remember` after the lease or the release, and so tells when that was.
--
-- Scripts compare and cut these texts by their beginning and their end, which are always in this
-- order; blanks after the state make it 20 bytes long, so that it can be written over in place. What
-- stands before the token is written by `requests.rs`.
--
-- The wait queue of a lock is two keys. They are gone when no request waits.
--   queue    sorted set: owner id by ticket (the server's clock in microseconds, or the last
--            ticket + 1), so that the first is the one that has waited longest
--   waiters  hash:
--     owner id -> 'ttl in ms' .. ' ' .. 'expiry of its fence in ms' .. ' ' .. channel .. ' '
--         .. due .. tail
--       due: what an earlier run forbids, or nothing; see `forbids`
--       tail: the text of its lock up to the token, as a request brings it
--     '#' .. channel -> how many waiters of that process stand in the queue
--     '@' .. channel -> 'when a waiter of that process last polled, in ms' .. ' ' .. run
--       run: '0' if the process can't be notified on its channel, and polls instead; otherwise
--       the run id of the server where it has subscribed, '1' if it may not know that; '-' once it
--       has let a claim run out, until it polls again
--     '!' -> owner id .. ' ' .. channel: the waiter that was last granted the lock unasked
--
-- For example, A holds; B of a process that was killed waits, then C. A is released:
--   ZPOPMIN takes B; the lock is written for B; PUBLISH reaches no client; the lock is deleted.
--   ZPOPMIN takes C; the lock is written for C; PUBLISH reaches one; the fence is written for C.
--   B has left the queue. If its process lives, B comes back with its ticket, to its old place.
--
-- Dangers, and the rules that guard against them:
--   - A script that fails half-way is not rolled back. What can fail (type, right, memory) comes
--     before the write that counts (rule R3).
--   - A lock that is offered to a dead waiter. Nothing stays written for a waiter that does not
--     get the lock; see `offer`.
--   - A waiter that loses its place to a short cut of the network. It knows its ticket, and polls
--     as soon as it is connected again.
--   - Dead waiters that cost each release. They are met once, and a process that lets a claim run
--     out is offered no other.
--
-- The server makes a script's functions anew in each call, and each costs it as much as a command.
-- So what most calls need stands before this text, and returns; and numbers stay text where nothing
-- is counted: a number in a call is printed with 17 digits first, for half of what the call costs.

local now = string.sub(micros, 1, -4)

-- The largest fencing token. This number, and those below, are the protocol's: a unit test in
-- requests.rs compares them.
local MAX_TOKEN = 9007199254740991
-- All in ms, and each the protocol's (`Timing::MILLIS`).
-- The longest lease of a waiter that was granted the lock and has not confirmed it.
local CLAIM = 3000
-- A process that can't be notified, and has not polled for longer, is out of reach.
local SILENCE = 3000
-- Every waiter polls more often than this. A queue that no waiter polls expires.
local QUEUE_LIFE = '45000'
-- After a restart of the server, how long a lock is kept for a waiter whose subscription may
-- be on its way back.
local GRACE = 500

-- A text that says nothing of it is remembered for so long: the number of `requests.rs`.
local REMEMBER = '604800000'

-- The last byte of the longest fence.
local FENCE_END = '1048831'

-- A number as text with all its digits: `tostring` rounds to 14.
local function whole(number)
    return string.format('%.0f', number)
end

-- Ends the step for this lock with an error of our own, in the form that `one` expects.
local function fail(text)
    error({err = text})
end

-- The answer for a lock whose step failed, with what `pcall` caught.
local function failed(caught)
    local text = type(caught) == 'table' and caught.err or tostring(caught)
    -- Redis 6.2 writes the place in the script before the error, and a dash.
    return {-1, string.match(text, ': %-?(%u%u+ .*)$') or text}
end

-- Carries out a step for one lock of several. Locks in one call share a round trip, and no
-- more: one that fails does not undo another. Answers the step's answer, or {-1, error}.
local function one(act, at)
    local done, answer = pcall(act, at)
    return done and answer or failed(answer)
end

-- The answer of the call: of a single lock as it is. An error of a single lock, or of all (on a
-- replica), is the script's own error.
local function all(answers)
    local first = answers[1]
    if type(first) == 'table' and first[1] == -1
        and (#answers == 1 or string.find(first[2], 'READONLY', 1, true) == 1) then
        return redis.error_reply(first[2])
    end
    return #answers == 1 and first or answers
end

-- The text of a key of ours, and its type. '' if it is no string. More than the longest text of
-- ours is not read: a key that is none of ours may be as long as the server's memory.
local function read_text(key)
    local text = redis.pcall('GETRANGE', key, '0', '524287')
    if type(text) == 'string' and text ~= '' then
        return text, 'string'
    end
    -- Another program's key counts as held; a string that can't be read is an error.
    local kind = redis.call('TYPE', key).ok
    if kind == 'string' and text ~= '' then
        fail(text.err)
    end
    return '', kind
end

-- What the text of a lock or a fence says: its state, its owner id, its token, when it was acquired.
-- Nothing if no version-1 text is there. A name in it has no `"token":`, for its quotes are escaped.
local function read(text)
    local state, owner = string.match(text, '^{"applock":1,"state":"(%l+)", *"owner":"(%x+)",')
    local at = state and string.find(text, '"token":', 34, true)
    if at then
        local token = string.match(text, '^(%d+)}', at + 8)
        if token then
            return state, owner, token, string.sub(token, 1, -4)
        end
        local late, acquired = string.match(text, '^(%d+),"acquired_at":(%d+)}', at + 8)
        return late and state, owner, late, acquired
    end
    return nil
end

-- For how long the holding of a text is remembered after its end, in ms.
local function remembered(text)
    return string.match(text, '^[^\n]-,"remember":(%d+)') or REMEMBER
end

-- The states, as they stand in a text: all of one length.
local STATE_AT, STATE_END = '13', 33
local HELD = '"state":"held",     '
local AWAITED = '"state":"awaited",  '
local CLAIMED = '"state":"claimed",  '
local KEPT = '"state":"kept",     '
local FORCED = '"state":"forced",   '

-- What a new fence keeps of the one that it replaces, by fence: the second line, and the third.
local successes, ticks = {}, {}

-- Notes what the next fence keeps of this one. `ended`: the state of its holding, where that
-- is not written down yet.
local function keep_of(fence, text, ended)
    local line, second, third = string.match(text, '^([^\n]*)\n?([^\n]*)\n?([^\n]*)')
    if (ended or string.match(line, '^{"applock":1,"state":"(%l+)"')) == 'ok' then
        local left = redis.call('PTTL', fence)
        if ended then
            -- It ends now: `remember` is left.
            left = remembered(line)
            line = '{"applock":1,"state":"ok",       ' .. string.sub(line, STATE_END + 1)
        end
        second = '{"noted_at":' .. micros .. ',"left":' .. left .. ',' .. string.sub(line, 2)
    end
    successes[fence], ticks[fence] = second, third
end

-- The next fencing token: the larger of (last token + 1) and the clock in microseconds (rule
-- R8), compared as numbers. A token that is lost with its fence, or was never written, does
-- not make the next one smaller: the clock has gone on. Reading it also finds out a fence that
-- is no string, or none of ours.
-- Also notes what the next fence keeps of this one.
local function next_token(fence, ended)
    local text = redis.call('GETRANGE', fence, '0', FENCE_END)
    if text == '' then
        return micros
    end
    local _, _, last = read(text)
    last = tonumber(last)
    if not last then
        local version = string.match(text, '^{"applock":(%d+),')
        fail(version and version ~= '1' and 'BADFENCE it is of version ' .. version .. ' of the layout'
            or 'BADFENCE it holds ' .. string.format('%q', string.sub(text, 1, 80)))
    end
    keep_of(fence, text, ended)
    if last < tonumber(micros) then
        return micros
    end
    if last >= MAX_TOKEN then
        fail('BADFENCE the fencing token is at its largest value')
    end
    return whole(last + 1)
end

-- A write that changes nothing, so that a replica or a server that can't write says so, and
-- does not answer from what it remembers.
local function touch(fence)
    local left = redis.call('PTTL', fence)
    redis.call('PEXPIRE', fence, left > 0 and left or REMEMBER)
end

-- Sets a lease back to its full ttl. A claim is confirmed by it: the text changes then. A server
-- short of memory may refuse that, and the next heartbeat tries again.
local function confirm(lock, fence, state, ttl, text)
    if state == 'claimed' then
        -- Others may wait behind it.
        redis.pcall('SETRANGE', lock, STATE_AT, AWAITED)
    end
    redis.call('PEXPIRE', lock, ttl)
    redis.call('PEXPIRE', fence, ttl + remembered(text))
end

-- The text of a holding that begins now, held; the expiry of its fence; and whether it is remembered
-- longer than its request says: one that has no tick is, where the last one that had was. The lock of such a
-- one is never `held`: a heartbeat or a release that finds that goes by its request.
local function holding_of(fence, token, tail, ttl, fence_ttl, due)
    local remember = due == '' and string.match(ticks[fence] or '', '^{"remember":(%d+)')
    local is_longer = remember and tonumber(remember) > fence_ttl - ttl
    if is_longer then
        local first, rest = string.match(tail, '^(.-"ttl":%d+)(.*)$')
        tail = first .. ',"remember":' .. remember .. string.gsub(rest, '^,"remember":%d+', '')
        fence_ttl = ttl + remember
    end
    tail = tail .. token .. (token == micros and '}' or ',"acquired_at":' .. now .. '}')
    return tail, fence_ttl, is_longer
end

-- Notes in the fence who holds the lock from now on, with what it keeps of the one before. `due`:
-- of its request, whose tick has begun by this.
local function write_fence(fence, holding, lease, ttl, fence_ttl, token, due)
    local second, third = successes[fence] or '', ticks[fence] or ''
    if due ~= '' then
        local number = string.match(due, '^tick (%d+) ')
        third = '{"remember":' .. whole(fence_ttl - ttl) .. (number
            and ',"tick":' .. number .. ',"token":' .. token .. '}'
            or string.match(third, ',"tick":.*$') or '}')
    end
    local kept = third ~= '' and '\n' .. second .. '\n' .. third
        or second ~= '' and '\n' .. second or ''
    redis.call('SET', fence, holding .. kept, 'PX', lease - ttl + fence_ttl)
end

-- Writes the lock, for so long.
local function write_lock(lock, holding, state, lease)
    redis.call('SET', lock, '{"applock":1,' .. state .. string.sub(holding, STATE_END + 1),
        'PX', lease)
end

-- Gives a free lock to a holder that is certain to have it. The fence, whose writing can fail
-- (type, rights, memory), comes first (rule R3). With a `claim` (in ms) the lock begins as a
-- short lease, which the holder's first heartbeat makes a full one.
local function grant(lock, fence, token, ttl, fence_ttl, tail, state, due, claim)
    local holding, fence_ttl, is_longer = holding_of(fence, token, tail, ttl, fence_ttl, due)
    write_fence(fence, holding, claim or ttl, ttl, fence_ttl, token, due)
    write_lock(lock, holding, is_longer and state == HELD and AWAITED or state, claim or ttl)
end

-- Notes in the fence how the holding ended, for so long. A courtesy: a server short of memory may
-- refuse it.
local function note_end(fence, state, remember)
    local length = redis.pcall('SETRANGE', fence, STATE_AT, state)
    if length == STATE_END then
        -- There was none.
        redis.call('DEL', fence)
    elseif type(length) == 'number' then
        redis.pcall('PEXPIRE', fence, remember)
    end
end

-- A process has a waiter less. Forgets it with its last one.
local function part(waiters, channel)
    if redis.call('HINCRBY', waiters, '#' .. channel, '-1') <= 0 then
        redis.call('HDEL', waiters, '#' .. channel, '@' .. channel)
    end
end

-- Whether an earlier run forbids a request that is once per tick. `ended`: the state of the newest
-- holding, where the fence does not say it yet. `due` is one of
--   gap MS RETRY   forbidden if the last run that counts began less than so long ago
--   tick N RETRY   forbidden unless N is larger than the last one that was begun
-- RETRY is 1 if a run that ended badly does not count: then the tick of the newest one is open
-- still. Ticks are compared as texts: they may have 20 digits, and a number has 53 bits.
-- Answers nothing, or which run forbids it ('newest' or 'success', the line before it), the time
-- that the fence has left, and its text. The script answers these as
--   {2, which, now in ms, the fence's time left in ms, its text, the owner id in the lock's text}
local function forbids(fence, due, ended)
    local text = redis.call('GETRANGE', fence, '0', FENCE_END)
    local state, _, token, at = read(text)
    if not state then
        return nil
    end
    state = ended or state
    -- The run that was `ok` before it.
    local function success()
        local line = string.match(text, '^[^\n]*\n{"noted_at":%d+,"left":[%d-]+,([^\n]*)')
        local _, _, token, at = read(line and '{' .. line or '')
        return token, at
    end
    local kind, number, retry = string.match(due, '^(%l+) (%d+) (%d)$')
    local counts = state ~= 'unused' and (retry == '0' or state == 'ok' or state == 'released')
    local before
    if kind == 'gap' then
        if counts then
            before = now - at < tonumber(number) and 'newest'
        else
            _, at = success()
            before = at and now - at < tonumber(number) and 'success'
        end
    else
        local last, began = string.match(text, '\n{"remember":%d+,"tick":(%d+),"token":(%d+)}$')
        if last and (#number < #last or #number == #last and number < last
            or number == last and (began ~= token or counts)) then
            before = success() == began and 'success' or 'newest'
        end
    end
    if before then
        return before, redis.call('PTTL', fence), text
    end
end

-- Puts a request into the queue, or leaves it where it stands, and notes that its process has
-- polled. `ticket`: '0', or that of a place it had and the server has lost.
-- Answers: how many stand before it; 1 if it is new there; its ticket, '0' if that is the one it
-- has brought; how many wait now.
--
-- What can fail (a wrong type) comes before what must not stay: the hash, its expiry, the queue.
local function join(queue, waiters, owner, ttl, fence_ttl, tail, ticket, channel, run, due)
    local is_last = ticket == '0'
    if is_last then
        local last = redis.call('ZRANGE', queue, '-1', '-1', 'WITHSCORES')[2]
        last = last and tonumber(last)
        ticket = last and last >= tonumber(micros) and whole(last + 1) or micros
    end
    local before = string.match(redis.call('HGET', waiters, owner) or '', '^%d+ %d+ (%S+) ')
    redis.call('HSET', waiters, owner,
        ttl .. ' ' .. fence_ttl .. ' ' .. channel .. ' ' .. due .. tail,
        '@' .. channel, now .. ' ' .. run)
    redis.call('PEXPIRE', waiters, QUEUE_LIFE)
    local new = redis.call('ZADD', queue, 'NX', ticket, owner)
    redis.call('PEXPIRE', queue, QUEUE_LIFE)
    local waiting = redis.call('ZCARD', queue)
    if new == 1 or before ~= channel then
        redis.call('HINCRBY', waiters, '#' .. channel, '1')
    end
    if new == 0 and before and before ~= channel then
        -- It has come from another node, where its process listens on another channel.
        part(waiters, before)
    end
    local ahead = new == 1 and is_last and waiting - 1 or redis.call('ZRANK', queue, owner)
    if new == 0 then
        -- Where it brings none, the answer that told it was lost.
        ticket = is_last and redis.call('ZRANGE', queue, ahead, ahead, 'WITHSCORES')[2] or '0'
    end
    return ahead, new, ticket, waiting
end

-- Forgets a waiter that has left the queue, and its process if it was the last one of that.
local function forget(waiters, owner, channel)
    redis.call('HDEL', waiters, owner)
    if channel then
        part(waiters, channel)
    end
end

-- A request that does not hold the lock leaves the queue, if it stands there.
local function leave(queue, waiters, owner)
    if redis.call('ZREM', queue, owner) > 0 then
        if redis.call('EXISTS', queue) > 0 then
            local record = redis.call('HGET', waiters, owner) or ''
            forget(waiters, owner, string.match(record, '^%d+ %d+ (%S+) '))
        else
            -- The last waiter leaves nothing behind.
            redis.call('DEL', waiters)
        end
    end
end

-- The lock is free though its newest holder has not given it back. If that holder was granted it
-- unasked, its process is out of reach until it polls: the other waiters of that process are not
-- offered the lock.
local function note_missed_claim(fence, waiters)
    local owner, channel = string.match(redis.call('HGET', waiters, '!') or '', '^(%x+) (%S+)$')
    local state, newest = read(owner and read_text(fence) or '')
    local polled = state == 'held' and newest == owner
        and redis.call('HGET', waiters, '@' .. channel)
    if polled then
        redis.call('HSET', waiters, '@' .. channel, string.match(polled, '^%d+') .. ' -')
    end
end

-- Whether the process has subscribed to an earlier run of this server: to one that has
-- restarted since. `false` where that can't be known.
local function has_restarted(run)
    local info = run ~= '1' and redis.pcall('INFO', 'server')
    local known = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
    return known and known ~= run
end

-- Offers a free lock to a waiter: `owner`, with the `ttl`, `fence_ttl` and `tail` of its
-- request; its process has been silent for `silence` ms, and is notified on `channel` as `run`
-- says.
-- Answers: whether the waiter has the lock now; its claim in ms, `nil` for a full lease.
--
-- `own_channel`: the channel of the process that asks. Its waiters are notified by the
-- answer, and nothing is published. `requester`: the owner id that asks for itself, and gets
-- a full lease. `unreachable`: the channels that this call has found without a subscriber.
--
-- A waiter that needs no message is certain to have the lock: see `grant`. A waiter that has
-- to be notified may be dead, and PUBLISH alone tells. There the order is: the lock, the
-- message, the fence.
--   - The lock before the message, so that no other request can take it between the two, and
--     two processes never think they hold it.
--   - The fence after the message, so that a dead waiter leaves nothing behind: its lock is
--     deleted here, and the last holding stays the one that was. Writing the fence is not
--     expected to fail: `next_token` has read it, so its type and the rights are known. If it
--     fails all the same, the next token is still larger, by the clock.
local function offer(lock, fence, own_channel, requester, unreachable, token, owner, ttl,
    fence_ttl, tail, silence, channel, run, due)
    local claim = tonumber(ttl) > CLAIM and CLAIM or ttl
    if owner == requester then
        grant(lock, fence, token, ttl, fence_ttl, tail, AWAITED, due)
        return true, nil
    end
    if channel == own_channel or run == '0' and silence <= SILENCE then
        grant(lock, fence, token, ttl, fence_ttl, tail, CLAIMED, due, claim)
        return true, claim
    end
    if unreachable[channel] or run == '0' or run == '-' then
        return false, nil
    end
    local holding, fence_ttl = holding_of(fence, token, tail, ttl, fence_ttl, due)
    write_lock(lock, holding, CLAIMED, claim)
    -- An error (no right to publish) is not 0 receivers: that waiter finds its grant when it
    -- polls.
    local receivers = redis.pcall('PUBLISH', channel,
        owner .. ' ' .. token .. ' ' .. micros .. ' ' .. claim .. ' ' .. lock)
    local lease = claim
    if receivers == 0 and has_restarted(run) then
        redis.call('PEXPIRE', lock, GRACE)
        lease = GRACE
    elseif receivers == 0 then
        unreachable[channel] = true
        redis.call('DEL', lock)
        return false, nil
    end
    write_fence(fence, holding, lease, ttl, fence_ttl, token, due)
    return true, claim
end

-- Hands a free lock to the first waiter that can be reached; those before it leave the queue.
-- `token` is the next fencing token; `ended` is the state of the holding that ends by this, if one
-- does; `first` is what ZPOPMIN took out of the queue: {owner id,
-- ticket}, or {}.
-- Answers: the owner id that has the lock now, or `nil`; its claim in ms, if it is of the
-- process that asks. Where no waiter has it, the key of the holding that has ended may still
-- be there: the caller deletes it.
local function serve(lock, fence, queue, waiters, own_channel, requester, token, ended, first)
    local unreachable = {}
    while first[1] do
        local owner, silence, run, is_served, claim = first[1], 0, '0', false, nil
        local ttl, fence_ttl, channel, due, tail = string.match(
            redis.call('HGET', waiters, owner) or '', '^(%d+) (%d+) (%S+) ([^{]*)({.*)$')
        -- One that an earlier run forbids is told by its next poll.
        if ttl and (due == '' or not forbids(fence, due, ended)) then
            if channel ~= own_channel and owner ~= requester then
                local seen = redis.call('HGET', waiters, '@' .. channel)
                local at, listens = string.match(seen or '', '^(%d+) ([%w-]+)$')
                silence, run = at and now - at or SILENCE + 1, listens or '0'
            end
            is_served, claim = offer(lock, fence, own_channel, requester, unreachable, token,
                owner, ttl, fence_ttl, tail, silence, channel, run, due)
        end
        if claim then
            redis.call('HSET', waiters, '!', owner .. ' ' .. channel)
        end
        forget(waiters, owner, channel)
        if is_served then
            return owner, channel == own_channel and claim or nil
        end
        first = redis.call('ZPOPMIN', queue)
    end
    return nil, nil
end

