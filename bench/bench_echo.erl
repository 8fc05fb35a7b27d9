%% Yardstick: calls of a gen_server, and funs with state, on another Erlang node over TLS.
-module(bench_echo).
-behaviour(gen_server).
-export([server/0, run/1, visited/3, init/1, handle_call/3, handle_cast/2]).

server() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []),
    io:format("ready~n").

init([]) -> {ok, none}.
handle_call(null, _From, State) -> {reply, ok, State}.
handle_cast(_, State) -> {noreply, State}.

%% One command a line: "rpc N OUTSTANDING", "move N" or "first N"; answered by one line of JSON.
run(Node) ->
    true = net_kernel:connect_node(Node),
    io:format("ready~n"),
    loop(Node).

loop(Node) ->
    case io:get_line("") of
        eof -> halt(0);
        Line ->
            {Us, Rate} = command(Node, string:lexemes(Line, " \n")),
            N = length(Us),
            Sorted = lists:sort(Us),
            At = fun(Q) -> lists:nth(round(Q * (N - 1)) + 1, Sorted) / 1000 end,
            io:format("{\"p50_us\": ~.1f, \"p99_us\": ~.1f, \"per_s\": ~.1f}~n", [At(0.5), At(0.99), Rate]),
            loop(Node)
    end.

command(Node, ["rpc", N, K]) ->
    Server = {echo, Node},
    one_by_one(fun() -> gen_server:call(Server, null) end, 200),
    Us = one_by_one(fun() -> gen_server:call(Server, null) end, list_to_integer(N)),
    {Us, window(Server, 10 * list_to_integer(N), list_to_integer(K))};
command(Node, ["move", N]) ->
    State = lists:duplicate(64, {key, <<"sixteen bytes...">>}), %% about 1 KB
    Go = fun() ->
        Me = self(),
        spawn(Node, fun() -> Me ! {there, length(State)} end),
        receive {there, 64} -> ok end
    end,
    one_by_one(Go, 50),
    {one_by_one(Go, list_to_integer(N)), 0.0};
command(Node, ["first", N]) ->
    Modules = [module() || _ <- lists:seq(1, list_to_integer(N))],
    Visit = fun({Name, Binary}) ->
        At = erlang:monotonic_time(nanosecond),
        spawn(Node, ?MODULE, visited, [self(), Name, Binary]),
        receive {there, Name} -> ok end,
        erlang:monotonic_time(nanosecond) - At
    end,
    {[Visit(M) || M <- Modules], 0.0}.

%% On the other node: a module that was never there is loaded and run.
visited(From, Name, Binary) ->
    {module, Name} = code:load_binary(Name, "bench", Binary),
    Name:run(From).

%% A module of about 2 KB by a name that nobody has used.
module() ->
    Name = list_to_atom("visitor" ++ integer_to_list(erlang:unique_integer([positive]))),
    Text = [io_lib:format("-module(~s). -export([run/1, f/1]). run(P) -> P ! {there, ~s}.", [Name, Name]),
            [io_lib:format(" f(~b) -> {~s, \"~b: so that it is as large as the carrier's code\", ~b};", [I, Name, I, I * I])
             || I <- lists:seq(1, 30)], " f(_) -> none."],
    {ok, Tokens, _} = erl_scan:string(lists:flatten(Text)),
    Forms = [begin {ok, F} = erl_parse:parse_form(T), F end || T <- forms(Tokens, [], [])],
    {ok, Name, Binary} = compile:forms(Forms, []),
    {Name, Binary}.

forms([], [], Done) -> lists:reverse(Done);
forms([{dot, _} = Dot | Rest], Form, Done) -> forms(Rest, [], [lists:reverse([Dot | Form]) | Done]);
forms([Token | Rest], Form, Done) -> forms(Rest, [Token | Form], Done).

one_by_one(Fun, N) ->
    [begin
         At = erlang:monotonic_time(nanosecond),
         Fun(),
         erlang:monotonic_time(nanosecond) - At
     end || _ <- lists:seq(1, N)].

window(Server, N, K) ->
    At = erlang:monotonic_time(nanosecond),
    go_on([gen_server:send_request(Server, null) || _ <- lists:seq(1, K)], [], N - K, Server),
    N * 1.0e9 / (erlang:monotonic_time(nanosecond) - At).

go_on([], [], _, _) -> ok;
go_on([], Back, Left, Server) -> go_on(lists:reverse(Back), [], Left, Server);
go_on([R | Rest], Back, Left, Server) ->
    {reply, ok} = gen_server:wait_response(R, 10000),
    case Left > 0 of
        true -> go_on(Rest, [gen_server:send_request(Server, null) | Back], Left - 1, Server);
        false -> go_on(Rest, Back, 0, Server)
    end.
