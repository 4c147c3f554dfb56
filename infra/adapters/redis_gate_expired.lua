-- <org>/<attempt> of unlogged holds admitted before a time, the oldest first. Of a lost gate: none.
local before, most = given[2], given[3]
if redis.call('HGET', STATE, 'node') ~= ARGV[1] then
  return {}
end
return redis.call('ZRANGEBYSCORE', UNLOGGED, '-inf', '(' .. text(before), 'LIMIT', 0, most)
