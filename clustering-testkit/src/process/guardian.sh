# Outlives the test process that started it, and kills or removes what that process leaves behind. Reads the resources
# to clean up from its input, one per line, until the input ends together with the test process:
#
#   + pid 17     + dir /tmp/x     + container NAME     and the same with - once the resource is gone
#
# Signals that end the tests may reach this shell too. Ignore them, in order to clean up.
trap '' HUP INT QUIT TERM PIPE

newline='
'
kept=$newline
while IFS= read -r line; do
    entry=${line#? }
    case $line in
    +*) kept=$kept$entry$newline ;;
    -*)
        case $kept in
        *"$newline$entry$newline"*)
            kept=${kept%%"$newline$entry$newline"*}$newline${kept#*"$newline$entry$newline"}
            ;;
        esac
        ;;
    esac
done

# each KIND COMMAND...: runs the command for every resource of that kind.
each() {
    kind=$1
    shift
    for entry in $kept; do
        case $entry in
        "$kind "*) "$@" "${entry#"$kind "}" ;;
        esac
    done
}

# Kills a process and its children, which are in its process group.
end() {
    # Not `kill -KILL -- -17`, which dash does not understand.
    kill -s KILL -- "-$1"
}

# Retries, because processes that were just killed may still write to the folder.
remove_folder() {
    tries=0
    while rm -rf -- "$1"; [ -e "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return
        sleep 0.1
    done
}

# Retries, because Docker may still be executing its last command.
remove_container() {
    for try in 1 2 3; do
        docker rm --force --volumes -- "$1"
        docker container inspect -- "$1" || return
        sleep 1
    done
}

set -f
IFS=$newline
each pid end
each container remove_container
each dir remove_folder
