"""The Lua verbs with the replies that each may give beside `scripts.REFUSALS`.

What a reply means and which fields it has is said in the header of the verb's Lua file.
"""

from typing import Literal

from orchestrator.store.scripts import Script

OK = Literal["OK"]
OK_OR_UNCHANGED = Literal["OK", "UNCHANGED"]
OK_OR_UNCHANGED_OR_STALE = Literal["OK", "UNCHANGED", "STALE"]

SETUP = Script[Literal["OK", "EXISTS"]]("setup")
REGISTER = Script[Literal["OK", "RACE"]]("register")
SUBMIT = Script[Literal["OK", "DUPLICATE"]]("submit")
SNAPSHOT = Script[OK]("snapshot")
DUE = Script[OK]("due")
FOLLOW_UP = Script[Literal["OK", "STALE"]]("follow_up")
UNMERGE = Script[Literal["OK", "STALE"]]("unmerge")
DECIDE = Script[Literal["OK", "DONE", "CONFLICT", "STALE", "EARLIER"]]("decide")
SET_STRATEGY = Script[Literal["OK", "STALE"]]("set_strategy")

CLAIM = Script[Literal["OK", "NONE", "BUSY"]]("claim")
RENEW = Script[OK]("renew")
REQUEUE = Script[Literal["OK", "DONE", "CANCELLED"]]("requeue")
CONDEMN = Script[Literal["OK", "UNCHANGED", "STALE"]]("condemn")
DIRECT = Script[Literal["OK", "DONE", "CONFLICT", "PROFILE", "MODEL"]]("direct")

POOL_REGISTER = Script[OK]("pool_register")
POOL_LIST = Script[OK]("pool_list")
HEARTBEAT = Script[OK]("heartbeat")
ACQUIRE = Script[Literal["OK", "NONE", "PAUSED", "CONFLICT"]]("acquire")
RELEASE = Script[Literal["OK", "LEASED", "NOT_HELD"]]("release")
DEREGISTER = Script[Literal["OK", "LEASED", "HELD"]]("deregister")
TIDY = Script[OK]("tidy")

RACE = Script[Literal["OK", "UNCHANGED", "HAND", "STALE"]]("race")
PAUSE = Script[OK_OR_UNCHANGED_OR_STALE]("pause")
RESUME = Script[OK_OR_UNCHANGED_OR_STALE]("resume")
ADD_NOTE = Script[Literal["OK", "FULL", "STALE"]]("add_note")
DROP_NOTE = Script[Literal["OK", "NO_NOTE", "STALE"]]("drop_note")
STOP = Script[Literal["OK", "UNCHANGED", "DONE", "CONFLICT", "STALE"]]("stop")
REPEAT = Script[Literal["OK", "CONFLICT", "NO_SOURCE", "STALE"]]("repeat")
SET_PRIORITY = Script[Literal["OK", "UNCHANGED", "CONFLICT", "STALE"]]("set_priority")
DRAIN = Script[OK_OR_UNCHANGED]("drain")
UNDRAIN = Script[OK_OR_UNCHANGED]("undrain")

CREATE_TOKEN = Script[Literal["OK", "EXISTS"]]("create_token")
REVOKE_TOKEN = Script[Literal["OK", "NO_TOKEN"]]("revoke_token")
