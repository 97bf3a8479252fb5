-- The server's clock, for the scripts that need it: in microseconds, of which tokens and tickets are
-- made, and in milliseconds. As texts: a number costs the server more than a text.

local clock = redis.call('TIME')
local micros = clock[1] .. string.sub('00000' .. clock[2], -6)
local now = string.sub(micros, 1, -4)

