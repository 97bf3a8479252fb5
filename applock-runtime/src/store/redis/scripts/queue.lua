-- What every script begins with: the clock, the fencing token, and the line of those who
-- wait for a lock.
--
-- The line is a sorted set (owner ids by ticket), and a hash of who they are:
--   owner id -> JSON of {ttl in ms, channel of the process, app, name, instance, host, pid}
--   '@' .. channel -> 'when a waiter of that process last asked, in ms' .. ' ' ..
--     ('0': it can't listen on its channel, and asks again and again instead; otherwise
--     the run id of the server where it has subscribed, '1' if it may not know that)
--
-- A script is compiled once and runs often: what is needed only where somebody waits is
-- made inside `wait_queue`, and numbers stay text where nothing is counted.

local clock = redis.call('TIME')
local micros = clock[1] .. string.sub('00000' .. clock[2], -6)
local now = string.sub(micros, 1, -4)

local function whole(number)
    return string.format('%.0f', number)
end

-- For the pcall in `for_each`.
local function fail(text)
    error({err = text})
end

-- Does something for each of the locks in KEYS; one that fails does not undo another.
-- What fails for a single lock, or for all (on a replica), is the script's own error.
local function for_each(act, header, width)
    local answers = {}
    for i = 0, #KEYS / 4 - 1 do
        local key, arg = 4 * i, header + width * i
        local done, answer = pcall(act, KEYS[key + 1], KEYS[key + 2], KEYS[key + 3],
            KEYS[key + 4], unpack(ARGV, arg + 1, arg + width))
        if not done then
            local text = type(answer) == 'table' and answer.err or tostring(answer)
            -- Redis 6.2 tells where it was, and puts a dash before.
            text = string.match(text, ': %-?(%u%u+ .*)$') or text
            if #KEYS == 4 or i == 0 and string.find(text, 'READONLY', 1, true) == 1 then
                return redis.error_reply(text)
            end
            answer = {-1, text}
        end
        answers[i + 1] = answer
    end
    return answers
end

-- The larger of (last token + 1) and the clock in microseconds (rule R8).
local function next_token(fence)
    local last = redis.call('HGET', fence, 'token')
    if not last then
        return micros
    end
    local number = tonumber(last)
    if not (number and number >= 0) then
        fail('BADFENCE the last fencing token is ' .. string.format('%q', last))
    end
    if number < tonumber(micros) then
        return micros
    end
    if number >= 9007199254740991 then
        fail('BADFENCE the fencing token is at its largest value')
    end
    return whole(number + 1)
end

-- Notes in the fence who holds the lock from now on.
local function write_fence(fence, fence_ttl, token, owner, ttl, instance, host, pid)
    redis.call('HSET', fence, 'token', token, 'last', owner .. ' ' .. now .. ' ' .. ttl .. ' ' .. pid,
        'instance', instance, 'host', host)
    redis.call('PEXPIRE', fence, fence_ttl)
end

-- Writes a lock that is free. A claim is a short lease, which the first heartbeat lengthens.
local function write_lock(lock, token, owner, ttl, claim, app, name, instance, host, pid)
    if claim then
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', now, 'ttl', ttl,
            'claim', claim)
    else
        redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', app, 'name', name,
            'instance', instance, 'host', host, 'pid', pid, 'acquired_at', now, 'ttl', ttl)
    end
    redis.call('PEXPIRE', lock, claim or ttl)
end

-- Gives a free lock to one that is certain to have it. A script is not rolled back when it
-- fails half-way (rule R3): the fence, whose writing can fail (type, rights, memory), comes
-- first.
local function grant(lock, fence, fence_ttl, token, owner, ttl, claim, app, name, instance,
    host, pid)
    write_fence(fence, fence_ttl, token, owner, ttl, instance, host, pid)
    write_lock(lock, token, owner, ttl, claim, app, name, instance, host, pid)
end

local function make_wait_queue()
    -- A lock that was handed over stays so long with one who does not confirm it.
    local CLAIM = 3000
    -- A process that can only ask is thought dead after so long a silence.
    local SILENCE = 3000
    -- The waiters of one that can't be reached keep their places for so long after it asked.
    local DEAD_AFTER = 40000
    -- Everybody in line asks more often than this: a line of the dead expires.
    local QUEUE_LIFE = 45000
    -- After a restart of the server each has so long to come back and ask.
    local GRACE = 500

    local methods = {}

    -- Puts one into the line, or leaves it where it stands. Answers the ticket of one who
    -- did not stand there (the one it brings from a place that was lost, or a new one), how
    -- many wait now, and how many of them before it.
    function methods.join(queue, waiters, owner, ttl, ticket, channel, run, app, name, instance,
        host, pid)
        local is_last = ticket == '0'
        if is_last then
            local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
            last = last and tonumber(last)
            ticket = last and last >= tonumber(micros) and whole(last + 1) or micros
        end
        local new = redis.call('ZADD', queue, 'NX', ticket, owner) == 1
        redis.call('HSET', waiters, owner,
            cjson.encode({ttl, channel, app, name, instance, host, pid}),
            '@' .. channel, now .. ' ' .. run)
        redis.call('PEXPIRE', queue, QUEUE_LIFE)
        redis.call('PEXPIRE', waiters, QUEUE_LIFE)
        local count = redis.call('ZCARD', queue)
        local ahead = new and is_last and count - 1 or redis.call('ZRANK', queue, owner)
        return new and ticket or '0', count, ahead
    end

    -- Whether this server is not the one that a process has subscribed to: it has restarted.
    local function has_restarted(run)
        local info = run ~= '1' and redis.pcall('INFO', 'server')
        local known = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
        return known and known ~= run
    end

    -- Offers a free lock to a waiter. Answers whether it has the lock now, and its claim.
    --
    -- `own_channel` is the channel of the process that asks: its waiters are notified by the answer,
    -- and nothing is published. `requester` asks for itself: it gets a full lease.
    --
    -- Where a waiter has to be reached first, the lock is written before the message (two can
    -- never have it), and the fence only after it: a waiter that can't be reached leaves nothing
    -- behind, so the last holding stays the true one. That the fence is one was found out before, by
    -- reading its token; and were it not written, the next token were larger all the same, by the clock.
    local function offer(lock, fence, fence_ttl, own_channel, requester, unreachable, token, owner,
        who, silence, run)
        local ttl, channel = who[1], who[2]
        local claim = tonumber(ttl) > CLAIM and CLAIM or ttl
        if owner == requester then
            grant(lock, fence, fence_ttl, token, owner, ttl, nil, who[3], who[4], who[5], who[6],
                who[7])
            return true, nil
        end
        if channel == own_channel or run == '0' and silence <= SILENCE then
            grant(lock, fence, fence_ttl, token, owner, ttl, claim, who[3], who[4], who[5], who[6],
                who[7])
            return true, claim
        end
        if unreachable[channel] or run == '0' then
            return false, nil
        end
        write_lock(lock, token, owner, ttl, claim, who[3], who[4], who[5], who[6], who[7])
        -- An error (no right to publish) is no 0: it finds out when it asks again.
        local receivers = redis.pcall('PUBLISH', channel,
            owner .. ' ' .. token .. ' ' .. micros .. ' ' .. claim)
        if receivers == 0 and has_restarted(run) then
            -- Its subscription may be on its way back: it has time to ask.
            redis.call('PEXPIRE', lock, GRACE)
        elseif receivers == 0 then
            unreachable[channel] = true
            redis.call('DEL', lock)
            return false, nil
        end
        write_fence(fence, fence_ttl, token, owner, ttl, who[5], who[6], who[7])
        return true, claim
    end

    -- Hands a lock that is over to the first waiter that can be reached; `first` was taken
    -- out of the queue, and `token` is the next. Answers the owner, and its claim if it is of
    -- the process that asks. If there is none, a lock that was there before may be there
    -- still. See `offer`.
    --
    -- What is known of a process that waits no more is forgotten with the lock's end, or
    -- with time.
    function methods.serve(lock, fence, queue, waiters, fence_ttl, own_channel, requester, token,
        first)
        local unreachable, skipped = {}, {}
        local served, claim = nil, nil
        while not served and first[1] do
            local owner, silence, run, is_served = first[1], 0, '0', false
            local read, who = pcall(cjson.decode, redis.call('HGET', waiters, owner) or '')
            if not read then
                silence = DEAD_AFTER + 1
            elseif who[2] ~= own_channel and owner ~= requester then
                local seen = redis.call('HGET', waiters, '@' .. who[2])
                local at, listens = string.match(seen or '', '^(%d+) (%w+)$')
                silence, run = at and now - at or DEAD_AFTER + 1, listens or '0'
            end
            if read then
                is_served, claim = offer(lock, fence, fence_ttl, own_channel, requester,
                    unreachable, token, owner, who, silence, run)
            end
            if is_served then
                served = owner
                claim = who[2] == own_channel and claim or nil
            end
            if not is_served and silence <= DEAD_AFTER then
                skipped[#skipped + 1] = first
            else
                redis.call('HDEL', waiters, owner)
            end
            if not is_served then
                first = redis.call('ZPOPMIN', queue)
            end
        end
        for i = 1, #skipped do
            redis.call('ZADD', queue, skipped[i][2], skipped[i][1])
        end
        if #skipped > 0 then
            -- It may have been empty for a moment, and lost its time to live: that of what is
            -- known of its waiters.
            redis.call('PEXPIRE', queue, math.max(redis.call('PTTL', waiters), 1))
        end
        return served, claim
    end

    return methods
end

local the_queue = nil
local function wait_queue()
    the_queue = the_queue or make_wait_queue()
    return the_queue
end
