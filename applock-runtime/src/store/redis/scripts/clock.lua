-- The server's clock in microseconds, of which tokens and tickets are made. As a text: a number costs
-- the server more than a text.

local clock = redis.call('TIME')
local micros = clock[2]
micros = clock[1] .. (#micros == 6 and micros or string.sub('00000' .. micros, -6))

