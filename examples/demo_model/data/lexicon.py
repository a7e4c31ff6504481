"""The words that phrasings are made with: frames, politeness, contexts, synonyms."""

from __future__ import annotations

DO_FRAMES = (
    "how do I {do}", "how do I {do}", "how can I {do}", "how to {do}", "how would I {do}",
    "how [should|could|might|must] I {do}", "how does one {do}", "how do [you|we|people] {do}",
    "how can [you|we|one] {do}", "what do I [type|enter|run|write|use|need] to {do}",
    "what do I have to do to {do}", "what [should|must|can|could] I do to {do}",
    "what[ is|'s] the [best|right|usual|easiest|correct|simplest|] way to {do}",
    "what is needed to {do}", "what [would|does] it take to {do}",
    "[how is it possible|is it possible] to {do}",
    "I [want|need|wish|would like|have|am trying|'d like] to {do}", "I [must|should] {do}",
    "I want to {do}, how [do I do that|does that work|can I|]", "can I {do}", "could I {do}",
    "may I {do}", "can [you|dllama] help me [to|] {do}", "can you [tell|show|teach] me how to {do}",
    "[could|would] you [tell|show|explain to] me how to {do}", "[tell|show|teach] me how to {do}",
    "explain how to {do}", "explain to me how I can {do}", "help me {do}", "please {do}", "{do}",
    "{do}", "{do}: how", "is there [a|any|some] way to {do}", "any [way|chance|idea how] to {do}",
    "what if I [want|need|have] to {do}", "what about {doing}", "how about {doing}",
    "in dllama, how [do|can] I {do}", "how [do|can] I {do} with dllama",
    "with dllama, how do I {do}", "the [way|steps|instructions] to {do}",
    "which steps do I take to {do}", "where [can|do] I {do}", "do you know how to {do}",
    "I do not know how to {do}", "I have no idea how to {do}",
    "I am [looking for|searching] a way to {do}", "{doing}", "instructions for {doing}",
    "help with {doing}", "what is the way of {doing}", "how does {doing} work",
    "is {doing} possible", "I can't figure out how to {do}",
    "[my boss|my friend|somebody|my teacher] [wants|asked] me to {do}", "how is it done to {do}",
    "we [want|need|would like|plan] to {do}", "let me {do}", "I'd [rather|prefer to|love to] {do}",
    "what will let me {do}", "what can I use to {do}", "how do you suggest I {do}",
    "say how to {do}",
)  # fmt: skip

VIA_FRAMES = (
    "which {via} [lets|allows|helps] me [to|] {do}",
    "which {via} do I [use|need|take|give|pass|set] to {do}",
    "what {via} do I [use|need|take|give|pass|set] to {do}",
    "what {via} [should|must|can] I use to {do}", "is there [a|any|some] {via} to {do}",
    "is there [a|any|some] {via} for {doing}", "name the {via} to {do}", "{via} to {do}",
    "{via} for {doing}", "what[ is|'s] the {via} to {do}", "what[ is|'s] the {via} for {doing}",
    "[give|tell] me the {via} [to|that lets me] {do}", "by [what|which] {via} [can|do] I {do}",
    "with [what|which] {via} [can|do] I {do}",
    "which {via} is [for|responsible for|meant for] {doing}",
    "I [need|am looking for|forgot] the {via} to {do}", "show me the {via} to {do}",
    "what is the name of the {via} to {do}", "what's the right {via} if I want to {do}",
    "which {via} would you use to {do}",
)  # fmt: skip
VIA_WORDS = {
    "flag": ("flag", "option", "switch", "argument", "parameter", "setting", "flag", "option"),
    "command": ("command", "command", "command line", "program", "tool", "line"),
    "route": ("route", "endpoint", "url", "path", "request", "address"),
    "field": ("field", "parameter", "option", "setting", "request field", "value"),
}

WHAT_FRAMES = (
    "what is {what}", "what is {what}", "what's {what}", "explain {what}", "explain {what} to me",
    "what does {what} mean", "what does {what} [do|stand for|say|tell me]",
    "what do you mean by {what}", "tell me [about|something about|more about] {what}",
    "what do you know about {what}", "describe {what}", "can you [explain|describe] {what}",
    "could you explain {what} [to me|]", "what is meant by {what}", "{what}", "{what}",
    "define {what}", "what is the meaning of {what}", "what is {what} [good|used|there|] for",
    "how does {what} work", "what is the [point|use|purpose|idea|sense|role|effect] of {what}",
    "I do not [understand|know] {what}", "a word about {what}", "what should I know about {what}",
    "help with {what}", "I have a question about {what}", "what about {what}", "how about {what}",
    "I [read|heard|saw] [about|something about|of] {what}, what is it", "why is there {what}",
    "do you know {what}", "have you heard of {what}", "info about {what}", "information on {what}",
    "in dllama, what is {what}", "what is {what} in dllama", "what exactly is {what}", "why {what}",
    "give me [a summary|an explanation|a short description] of {what}", "I wonder what {what} is",
    "the [docs|manual|help] [mentions|mention] {what}, what is that",
    "I see {what} here, what is it", "do you have something on {what}",
    "what can you tell me about {what}", "what are {what}",
    "is there something to know about {what}", "please describe {what}", "how do I read {what}",
    "what effect has {what}", "what happens with {what}", "{what}, what is that", "and {what}",
)  # fmt: skip

PREFIXES = (
    "hi,", "hello,", "hey,", "please,", "quick question:", "ok,", "so", "sorry,", "and",
    "hello dllama,", "hey dllama,", "one more thing:", "excuse me,", "question:", "just curious,",
    "well,", "now,", "good day,", "one question:", "a question:", "please tell me:",
    "can you tell me:", "tell me,", "also,", "but", "then", "actually,", "say,", "hi there,",
    "[good morning|good evening],", "dear dllama,", "next question:", "by the way,", "btw",
    "first of all,", "um,", "listen,", "another question:", "you know,", "in short:",
    "for a beginner:", "just to be sure:", "remind me,", "simple question:", "stupid question,",
    "help!", "in simple words:", "generally,", "if I may ask,", "thanks,", "great,", "okay, and",
)  # fmt: skip
SUFFIXES = (
    "please", "thanks", "in dllama", "with dllama", "exactly", "again", "here", "for me",
    "for a beginner", "in simple words", "in short", "now", "then", "today", "by the way",
    "if I may ask", "on my machine", "on linux", "on my laptop", "in general", "precisely",
    "actually", "in practice", "for us", "somehow", "please help", "thank you", "in one sentence",
    "at all", "correctly", "properly", "easily", "when I use dllama", "and how", "can you help",
    "I am new to this", "any idea", "any ideas", "please explain", "do you know",
)  # fmt: skip
CONTEXTS = (
    "I am new [here|to this|to dllama].", "I am a [beginner|student|developer|teacher].",
    "I [just|] installed dllama.", "I have [a|an old|a new] [laptop|computer|machine].",
    "I read the [readme|manual|docs].", "This is my first time.", "I have a question.",
    "I need help.", "Please help me.", "I [tried|looked] but I did not find it.", "Hello.", "Hi!",
    "We [use|try] dllama at [work|school|home].", "I am [sitting|working] at the root.",
    "I [like|love] dllama.", "Thanks for the help.", "I use linux.",
    "My [colleague|friend] told me about dllama.", "I forgot [it|how].", "Sorry to bother you.",
    "It is urgent.", "I could not find it in the help.", "Good morning.", "You know dllama.",
    "I am [trying|testing|setting up] dllama.", "I am a little lost.",
    "We are [curious|beginners].", "Be honest.", "Just a short answer.", "Explain it simply.",
    "No rush.", "I am reading about language models.", "Thanks.",
    "I run a [small|large] [office|lab|school|shop|farm|studio|company].",
    "My [uncle|sister|boss|team|customer|neighbour|wife|son] [needs|wants] it "
    "[today|soon|for a project].",
    "There are [two|three|four|six] [old|new|strong|weak] "
    "[desktops|servers|laptops|workstations|boards] [in the basement|in the office|under "
    "my desk|at home|here|in the lab].",
    "[I have|There are|Each machine has] [8|16|32|64] GB of [RAM|memory].",
    "The model has [1|3|7|8|13|70] billion parameters.",
    "I have a [fast|slow|wired|wireless] network.",
    "I am writing [an app|a web page|a script|a bot|a plugin] [in Python|in JavaScript|for "
    "my team|].", "[Yesterday|Before|Until now] it worked.",
    "It is for [a demo|my thesis|a course|production|fun].",
)  # fmt: skip

OPENERS = (
    "when", "although", "because", "if", "since", "while", "now that", "suppose", "imagine",
    "maybe", "my boss says", "it says", "I see that", "I read that", "they told me", "I think",
    "I believe", "I noticed", "the manual says", "we found", "there is", "there are", "here",
    "yesterday", "sometimes", "every time", "during", "before", "for some reason", "in the log",
    "it looks like", "as far as I know", "somebody said", "I would expect", "it seems",
    "I was told", "on my side", "in our case", "for our project", "with my setup", "at home",
    "in the office",
)  # fmt: skip
CLOSERS = (
    "what now", "any ideas", "how", "is that okay", "what should I do", "possible", "where", "why",
    "what do I do", "how so", "is that right", "what is it", "what does it tell me",
    "how does that work", "can you help", "by what", "how come", "which one", "is that possible",
    "what else", "what for", "and now", "what can I do", "how can that be", "is something wrong",
    "is there a way", "what would you do", "with what", "for what", "what next", "is it", "right",
    "or not", "or what", "what happens then",
)  # fmt: skip
FILLERS = (
    "really", "just", "still", "also", "only", "even", "already", "always", "never", "often",
    "quite", "very", "too", "rather", "somehow", "maybe", "perhaps", "currently", "usually",
    "normally", "again", "there", "here", "now", "then", "today", "later", "once", "soon", "yet",
    "so", "well", "my", "our", "your", "their", "its", "this", "that", "these", "those", "some",
    "any", "every", "each", "both", "all", "other", "own", "same", "whole", "certain", "little",
    "good", "new", "old", "nice", "small", "huge", "tiny", "strange", "simple", "plain", "single",
    "extra", "usual", "real", "we", "they", "he", "she", "people", "somebody", "everybody",
    "nobody", "one", "something", "everything", "nothing", "thing", "things", "stuff", "way",
    "time", "day", "week", "place", "with", "without", "from", "to", "into", "over", "under",
    "between", "among", "about", "around", "after", "before", "during", "since", "until", "through",
    "against", "than", "like", "as", "at", "and", "or", "but", "because", "although", "if", "when",
    "while", "whether", "where", "which", "who", "whose", "what", "have", "has", "had", "was",
    "were", "been", "being", "will", "would", "shall", "should", "could", "might", "may", "must",
    "got", "gets", "come", "comes", "came", "go", "goes", "went", "take", "takes", "took", "put",
    "keep", "let", "seem", "seems", "look", "looks", "think", "believe", "guess", "hope", "expect",
    "prefer", "like", "wonder", "notice", "happen", "mean", "try", "tried", "wanted", "needed",
    "asked", "told", "said", "saw", "seen", "found", "office", "school", "house", "friend", "boss",
    "team", "customer", "student", "project", "room", "desk", "kitchen", "cloud", "windows", "mac",
    "ubuntu", "phone", "browser", "script", "code", "log", "screen", "window", "page", "list",
    "line", "word", "letter", "number", "value", "example", "case", "kind", "part", "end", "begin",
    "top", "side", "point", "two", "three", "four", "five", "ten", "hundred", "first", "second",
    "last", "next", "half",
)  # fmt: skip
"""Words that say nothing of what is asked: the model has to learn to read past them."""

# What may stand for the first word of each line; underscores are spaces.
_GROUPS = (
    "machine computer pc box host laptop device", "machines computers pcs boxes hosts devices",
    "start launch begin boot spin_up fire_up kick_off bring_up execute",
    "show display print reveal tell list", "see view check look_at read find inspect",
    "find discover learn determine get",
    "set choose configure specify adjust pick define control change tune",
    "change alter modify adjust switch set vary", "limit cap restrict bound reduce lower",
    "use employ utilize work_with take apply", "give pass supply provide hand specify",
    "fast quick speedy rapid", "faster quicker speedier", "slow sluggish lagging", "big large huge",
    "bigger larger greater", "small tiny little", "model model_file weights checkpoint llm",
    "need require", "needs requires wants", "needed required necessary",
    "server api service api_server", "answer reply response output",
    "answers replies responses outputs", "question prompt query",
    "error message problem failure trouble complaint", "conversation chat dialogue talk",
    "conversations chats dialogues", "text string passage", "several multiple many a_few various",
    "another a_different some_other a_second", "different other distinct",
    "wrong incorrect bad broken", "stop end quit halt terminate", "stops ends quits halts",
    "leaves quits goes_away disappears exits", "happens occurs goes_on",
    "connect attach link join hook_up", "reach contact access get_to", "send transmit post submit",
    "split cut divide partition distribute", "show give print output", "protect secure guard lock",
    "allow permit let enable", "fix repair solve resolve", "measure benchmark time test gauge",
    "describe explain outline summarize", "explain describe clarify tell",
    "tell say inform explain_to", "option flag switch argument parameter setting",
    "command program instruction", "route endpoint url path", "field parameter key",
    "meaning sense definition", "purpose point goal aim job role", "size length amount",
    "number count amount quantity", "folder directory", "file document", "files documents",
    "network lan link connection", "memory ram", "cores cpus processors",
    "threads cores cpu_threads", "load open read", "run operate launch start",
    "try test attempt try_out", "install set_up deploy", "terminal shell console command_line",
    "users people clients", "requests calls queries", "works functions runs",
    "supported allowed possible accepted available", "default standard usual normal",
    "own personal private", "part piece portion", "hold keep store contain",
    "holds keeps stores contains", "more additional extra", "most maximum largest",
    "possible feasible allowed", "listen wait serve", "listens waits serves", "lost gone missing",
    "crashes dies fails breaks_down goes_down", "random creative varied wild", "likely probable",
    "short brief", "long lengthy extended", "know understand", "want wish would_like need",
    "good right fine suitable", "best ideal right optimal", "name call label",
    "exist are_there are_available", "remove drop delete", "fits goes_into matches",
    "enough sufficient", "whole entire complete full", "together jointly combined",
    "quickly fast soon rapidly", "local own here", "reason cause", "benefit advantage gain",
    "important relevant", "mean signify stand_for indicate", "means signifies indicates",
    "does is_done", "second other", "old ancient weak", "busy occupied taken",
    "damaged corrupt broken defective", "equal same identical", "same identical equal",
    "time duration", "data information",
)  # fmt: skip
SYNONYMS: dict[str, tuple[str, ...]] = {}
for _group in _GROUPS:
    _words = [w.replace("_", " ") for w in _group.split()]
    # Only the first word is ever replaced, so that meanings do not wander off.
    SYNONYMS[_words[0]] = SYNONYMS.get(_words[0], ()) + tuple(_words[1:])

CONTRACTIONS = (
    ("what is", "what's"), ("how is", "how's"), ("do not", "don't"), ("does not", "doesn't"),
    ("cannot", "can't"), ("is not", "isn't"), ("I am", "I'm"), ("I have", "I've"),
    ("it is", "it's"), ("I would", "I'd"), ("which", "what"), ("where is", "where's"),
    ("that is", "that's"), ("how do I", "how do you"), ("how do I", "how can I"),
    ("want to", "wanna"), ("going to", "gonna"),
)  # fmt: skip

NAMES_COMMAND = frozenset(
    {"dllama", "make", "--sync-type", "--model", "finish_reason", "reason", "/v1"}
)
"""Words after which the next one may be a name, such as `dllama run`."""

LITTLE = frozenset({
    "a", "an", "the", "do", "does", "i", "to", "is", "are", "can", "could", "would", "should",
    "of", "for", "in", "on", "my", "me", "you", "it", "with", "at", "be", "that", "this", "how",
    "what's", "and", "please", "so", "there", "have", "has", "will", "must",
})  # fmt: skip
QUESTION_WORDS = (
    r"(.*[,:.!] )?(what|which|how|why|who|where|when|can|could|would|is|are|do|does|may|must|"
    r"should|will|by what|by which|with which|with what|for what|in which|at which|on which|any|"
    r"have)\b"
)
DOUBLED = frozenset({
    "run", "set", "get", "put", "stop", "cut", "begin", "bind", "split", "let", "chat", "quit",
    "shut", "plan", "pin",
})  # fmt: skip
"""Verbs that double their last letter before -ing."""
