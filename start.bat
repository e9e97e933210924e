@echo off
rem Starts MOVA Studio. What follows goes to launch.py: start.bat doctor, start.bat update FILE, ...
setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul
set "PYTHON="
if exist "%~dp0.uv\path" set /p "PYTHON=" <"%~dp0.uv\path"
if defined PYTHON if exist "%PYTHON%" goto :start
call "%~dp0install.bat" --no-shortcuts
if errorlevel 1 exit /b 1
set /p "PYTHON=" <"%~dp0.uv\path"
:start
"%PYTHON%" "%~dp0launch.py" %*
set "CODE=%ERRORLEVEL%"
if not "%CODE%"=="0" if "%~1"=="" pause
exit /b %CODE%
