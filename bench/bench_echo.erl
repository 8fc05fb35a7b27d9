%% Yardstick: calls of a gen_server, and funs with state, on another Erlang node over TLS.
-module(bench_echo).
-behaviour(gen_server).
-export([server/0, run/1, init/1, handle_call/3, handle_cast/2]).

server() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []),
    io:format("ready~n").

init([]) -> {ok, none}.
handle_call(null, _From, State) -> {reply, ok, State}.
handle_cast(_, State) -> {noreply, State}.

%% One command a line: "rpc N OUTSTANDING" or "move N"; answered by one line of JSON.
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
    {one_by_one(Go, list_to_integer(N)), 0.0}.

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
